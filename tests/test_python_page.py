"""docs/python.md: every block runs, one after the other, as a reader would type them."""

import math
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the blocks define, after all of them have run in an empty folder beside assets/."""
    folder, found, nats = tmp_path_factory.mktemp("page"), {}, []
    (folder / "assets").symlink_to(ROOT / "assets")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text("utf-8"), re.S)
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), found)
        nats.append(found.get("nats"))
    patch.undo()
    return found | {"folder": folder, "nats_after": nats}


def test_a_picture_and_a_sound_are_written(names):
    with Image.open(names["folder"] / "seven.png") as picture:
        assert picture.size == (28, 28) and len(picture.getcolors()) > 1
    assert (names["folder"] / "seven.wav").stat().st_size == 44 + 2 * 4000


def test_the_likelihoods_are_those_of_drawn_samples(names):
    image, sound = (names["nats_after"][block] for block in (3, 4))
    # What the model has drawn itself costs about what the page of results says: 103 nats an image.
    assert 20 < image < 250
    assert 1.5 < sound / math.log(2) < 5


def test_training_on_arrays_and_an_extension_work(names):
    trainer = names["trainer"]
    assert trainer.epoch == 3 and trainer.observation["weights/norm"] > 0
