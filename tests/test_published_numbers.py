"""The models that come along have the likelihoods that docs/results.md says.

Needs the published sets in data/, the Free Spoken Digit Dataset in spoken_digits/, and Asterisk's
prompts in prompts/ (docs/speech.md), beside the scripts; a model whose data is missing is skipped.
"""

import json
import math
import re
import subprocess
import sys

import pytest
from test_assets import KINDS, MODELS, ROOT

from benchmarks.evaluate import load_test_images, nats_of_each_image, nats_without_labels
from datasets.images.published import SETS
from models.model_file import load

PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+\.pt)` \|(.+)\|$", PAGE, re.M))
NUMBERS = {  # of a row's likelihoods, by their unit
    "nats": r"([\d.]+) nats per digit",
    "bits/dim": r"([\d.]+) bits/dim(?! without)",
    "bits/dim without": r"([\d.]+) bits/dim without",
    "bits per sample": r"([\d.]+) bits per sample"}


def numbers_of(name):
    """The likelihoods in a model's row: {unit: text}."""
    return {unit: found[1] for unit, pattern in NUMBERS.items()
            if (found := re.search(pattern, ROWS[name]))}


def equals(text, value):
    """Whether a measured value rounds to a printed one, give or take the last digit."""
    decimals = len(text.partition(".")[2])
    return abs(float(text) - value) < 1.01 * 10 ** -decimals


def run(*command):
    """Run a script in the repository; return what it prints."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True,
                          text=True).stdout


def test_every_model_has_a_row():
    assert set(ROWS) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name] == "pixelcnn"])
def test_images_have_the_likelihood_of_the_page(name):
    file = load(MODELS / name, "pixelcnn")
    folder = ROOT / "data" / SETS[file.data["dataset"]][1]
    if not folder.exists():
        pytest.skip(f"{folder} is missing")
    part = re.search(r"first ([\d,]+) test", ROWS[name])
    images = load_test_images(name, file, ROOT / "data",
                              int(part[1].replace(",", "")) if part else None)
    dimensions = math.prod(images.pixels.shape[1:])
    nats, printed = nats_of_each_image(file.model, images).mean().item(), numbers_of(name)
    assert "nats" in printed or "bits/dim" in printed
    if "nats" in printed:
        assert equals(printed["nats"], nats)
    if "bits/dim" in printed:
        assert equals(printed["bits/dim"], nats / dimensions / math.log(2))
    if "bits/dim without" in printed:
        nats = nats_without_labels(file.model, images, len(file.label_names)).mean().item()
        assert equals(printed["bits/dim without"], nats / dimensions / math.log(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if "bits per sample" in ROWS[name]])
def test_sounds_have_the_likelihood_of_the_page(name, tmp_path):
    stem = name.partition(".")[0]
    config = json.loads((ROOT / "configs" / f"{stem}.json").read_text())
    recordings = ROOT / config["preprocess"]["data"]
    if not recordings.exists():
        pytest.skip(f"{recordings} is missing")
    run("preprocess.py", "--config", f"configs/{stem}.json", "--data", recordings, "--output",
        tmp_path / "corpus")
    printed = run("benchmarks/evaluate.py", "wavenet", "-m", MODELS / name, "--data",
                  tmp_path / "corpus")
    bits = float(re.search(r"([\d.]+) bits per sample", printed)[1])
    assert equals(numbers_of(name)["bits per sample"], bits)
