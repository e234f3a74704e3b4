"""The benchmark scripts run briefly on synthetic data."""

import math
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from test_commands import write_mnist, write_sounds

from benchmarks import cuda, hiss
from benchmarks.original import OriginalPixelCNN, OriginalWaveNet
from datasets.corpus.reader import Corpus
from models.model_file import model_content, save
from models.pixelcnn import PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from training.device import supported_precision

CPU = torch.device("cpu")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(script, *args):
    """Run the script; return what it prints."""
    return subprocess.run([sys.executable, BENCHMARKS / script, *map(str, args)],
                          capture_output=True, text=True, check=True).stdout


# Long enough for the WaveNet to learn something that rounding its weights changes.
@pytest.mark.parametrize("network, minutes", [("pixelcnn", 0.05), ("wavenet", 0.08)])
def test_likelihood_trains_for_the_given_time_and_prints_the_test_likelihood(network, minutes,
                                                                             tmp_path):
    write_mnist(tmp_path / "MNIST/raw")
    write_sounds(tmp_path / "anna", [f"{digit}_anna_{take}.wav" for digit in (0, 1)
                                     for take in (0, 4, 5, 6)])
    printed = run(
        "likelihood.py", network, "--data", tmp_path, "--minutes", minutes, "--hidden_dim", 6,
        "--out_hidden_dim", 6, "--blocks_num", 2, "--stacks_num", 1, "--layers_num", 3,
        "--target_length", 500, "--threads", 1,
        *(["--features", "mel"] if network == "wavenet" else ["--optimizer", "muon"]))
    bits = float(re.search(r"test: ([\d.]+) bits/dim", printed)[1])
    levels = 2 if network == "pixelcnn" else 256
    assert 0 < bits < 1.1 * math.log2(levels)
    assert int(re.search(r"([\d,]+) updates", printed)[1].replace(",", "")) > 1
    if network == "wavenet":
        increase = float(re.search(r"--precision bf16: ([+-][\d.]+) bits/dim", printed)[1])
        assert 0 < abs(increase) < 0.05


def test_copies_are_judged_by_their_spectra_and_their_digits(tmp_path):
    """With a kind of chirp for each digit, and an untrained network."""
    generator = np.random.default_rng(0)
    for digit, take in product((1, 2), (0, 1, 5, 6, 7)):
        time = np.arange(4000) / 8000
        phase = 2 * np.pi * (400 * digit * time + generator.uniform(500, 600) * time ** 2)
        path = tmp_path / "sounds" / f"{digit}_anna_{take}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(phase) * np.hanning(4000), 8000)
    subprocess.run([sys.executable, BENCHMARKS.parent / "preprocess.py", "--data",
                    tmp_path / "sounds", "--output", tmp_path / "corpus", "--features", "mel",
                    "--labels", "none", "--validation", "_[0-4].wav", "--stacks_num", "1",
                    "--layers_num", "3", "--workers", "1"], check=True, capture_output=True)
    features = Corpus(tmp_path / "corpus").features
    model = WaveNet(WaveNetConfig(hidden_dim=4, out_hidden_dim=4, stacks_num=1, layers_num=3,
                                  features=features.width, hop=features.hop))
    save(tmp_path / "model", model_content("wavenet", model, [], dict(
        levels=256, rate=8000, features=features.as_dict())))
    bits, *judged = run("copying.py", "-m", tmp_path / "model", "--corpus", tmp_path / "corpus",
                        "--data", tmp_path / "sounds", "--output", tmp_path / "out",
                        "--threads", 1).splitlines()
    assert 6 < float(bits.split()[0]) < 10
    found = {}
    for line in judged:
        name, distance, digits = re.fullmatch(r"([\w-]+): log-spectral distance ([\d.]+) dB; "
                                              r"([\d.]+)% of 4 digits recognised", line).groups()
        found[name] = float(distance), float(digits)
    assert found["recordings"] == (0, 100)
    # A delay of half a frame or wrongly inverted spectra would give a much larger distance.
    assert found["Griffin-Lim"][0] < 6 and found["Griffin-Lim"][1] == 100
    assert found["copies"][0] > 20 > 2 * found["Griffin-Lim"][0]
    for name in ("copies", "griffin-lim"):
        assert {len(soundfile.read(path)[0]) for path in (tmp_path / "out").glob(
            f"?_anna_?_{name}.wav")} == {4000}
    assert Image.open(tmp_path / "out/copies.png").size == (800, 480)
    # The chirps rise from silence; the untrained network draws noise of all codes.
    levels = re.findall(r"(-\d+\.\d) dB", run(
        "hiss.py", "-m", tmp_path / "model", "--corpus", tmp_path / "corpus", "--data",
        tmp_path / "sounds", "--threads", 1))
    recordings, copies, in_pauses = map(float, levels)
    assert recordings < -30 and -20 < copies < in_pauses < -5


def test_the_level_of_pauses():
    powers = hiss.frame_powers(np.repeat([0.5, 0.0, 0.01], 160) * np.tile([1, -1], 240) + 0.1, 8000)
    np.testing.assert_allclose(powers, [0.25, 0, 1e-4], atol=1e-12)
    assert list(hiss.quietest(np.concatenate((np.repeat(powers, 7)[::-1], powers)))) == [7, 8]
    assert hiss.level(powers[:1]) == pytest.approx(-6.02, abs=0.01)
    assert hiss.level(powers[1:2]) == pytest.approx(-120)


def test_sampling_speed_is_compared_with_its_limit():
    only = ["32 wide, 5×10, 1 sound, bf16", "32 wide, 5 blocks, 4 levels, 1 image"]
    printed = run("sampling.py", "--seconds", 0.1, "--threads", 1, "--only", *only)
    table, with_features = printed.split("\n\n|")[1:]
    machine, first = printed.splitlines()[:2]
    header, _, *rows = table.splitlines()
    assert float(re.search(r"([\d,]+) GFLOP/s on 1 thread$", machine)[1].replace(",", "")) > 0
    assert float(re.search(r"([\d.]+) s$", first)[1]) > 0
    assert len(rows) == 2
    for row, name, unit, read in zip(rows, only, ("samples", "images"), ("0.63 MB", "0.37 MB"),
                                     strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert name in cells[0] and unit in cells[1] and cells[5] == read
        assert len(cells) == len(header.strip("|").split("|"))
        assert all(float(cells[i].replace(",", "")) > 0 for i in (2, 3, 4))
        assert int(cells[7].rstrip("%")) > 0
    cells = [cell.strip() for cell in with_features.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == rows[0].strip("|").split("|")[0].strip() and "samples" in cells[1]
    assert all(5 < int(cell.rstrip("%")) < 400 for cell in cells[2:])


def test_training_speed_is_compared_with_the_original_and_its_limit():
    precisions = [name for name in ("fp32", "bf16") if supported_precision(CPU, name) == name]
    only = [f"16 images 28×28×3, {name}" for name in precisions]
    printed = run("training.py", "--seconds", 0.1, "--threads", 1, "--only", *only)
    threads, _, header, _, *lines = printed.splitlines()
    assert threads == "on 1 thread"
    speeds = []
    for name, row in zip(only, lines[:len(only)], strict=True):
        cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
        assert name in cells[0] and "PixelCNN 32 wide" in cells[0]
        assert len(cells) == len(header.strip("|").split("|"))
        ours, original, ratio, gflops, peak, share, memory = (
            float(re.match(r"[\d,.]+", cell)[0].replace(",", "")) for cell in cells[1:])
        assert ours > 0 and ratio == pytest.approx(ours / original, abs=0.1, rel=0.05)
        # 0.37 MB of weights, as in the sampling table; 3 × 2 FLOP per weight and pixel
        assert gflops == pytest.approx(ours * 6 * 0.37e6 / 4 * 28 * 28 / 1e9, abs=1, rel=0.05)
        assert share == pytest.approx(100 * gflops / peak, abs=3, rel=0.1)
        assert 100 < memory < 4000
        speeds.append(ours)
    loading = lines[-1]
    milliseconds, of_step = re.search(r"([\d.]+) ms, ([\d.]+)% of a step", loading).groups()
    row, = (n for n, name in enumerate(only) if name in loading)
    assert float(milliseconds) > 0
    assert float(of_step) == pytest.approx(float(milliseconds) * speeds[row] / 16 / 10, abs=0.1,
                                           rel=0.1)


def cells_of(line):
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


def test_both_distributions_are_compared():
    printed = run("distributions.py", "--seconds", 0.2, "--threads", 1, "--images", 1, "--only",
                  "32 wide, 5 blocks", "sampling one sound")
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| PixelCNN 32")
            or line.startswith("| WaveNet")]
    assert len(rows) >= 3
    for _, _, softmax, logistics, ratio, _ in rows:
        rates = [float(text.replace(",", "")) for text in (softmax, logistics)]
        assert rates[1] / rates[0] == pytest.approx(float(ratio.strip(" *")), rel=0.05, abs=0.01)


def test_the_gpu_benchmark_runs_on_any_device():
    """Here on the CPU; test_cuda_scripts.py runs it on a GPU."""
    torch.set_num_threads(1)
    training, sampling = "16 images 28×28×3", "PixelCNN 32 wide, 5 blocks, 4 levels, 1 image"
    lines = "\n".join(cuda.tables(CPU, 0.05, [f"{training}, fp32", f"{training}, tf32", sampling,
                                              "WaveNet 32 wide, 5×10, 1 sound"])).splitlines()
    _, header, _, *rows, _, sampling_header, _, sound, image = lines
    assert [cells_of(row)[0].rpartition(", ")[2] for row in rows] == ["fp32", "tf32"]
    for row in rows:
        cells = cells_of(row)
        assert len(cells) == len(cells_of(header)) and training in cells[0]
        ours, original, ratio, _, _, _, memory = (
            float(re.match(r"[\d,.]+", cell)[0].replace(",", "")) for cell in cells[1:])
        assert ratio == pytest.approx(ours / original, abs=0.1, rel=0.05) and memory > 100
    for row, unit in ((sound, "samples"), (image, "images")):
        cells = cells_of(row)
        assert len(cells) == len(cells_of(sampling_header)) and unit in cells[1]
        assert float(re.match(r"[\d,.]+", cells[1])[0].replace(",", "")) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_gpu_benchmark_prints_one_line():
    run = subprocess.run([sys.executable, BENCHMARKS / "cuda.py"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: --gpu 0: ") and run.stderr.count("\n") == 1


def test_preparing_prints_speed_and_memory():
    printed = run("preparing.py", "--minutes", 1, "--hours", 0.02, "--workers", 2,
                  "--memory_workers", 3)
    lines = iter(printed.splitlines()[1:])
    for data, features in product(
            ("1 × 60 s, wav", "1 × 60 s, ogg", "1 × 60 s, mp3", "20 × 3 s, wav"), ("none", "mel")):
        total, per_core = (float(text.replace(",", "")) for text in re.fullmatch(
            rf"{data}, --features {features}, 2 workers: ([\d,]+) × real time, ([\d,]+) a core",
            next(lines)).groups())
        assert total >= per_core > 1
    for features in ("none", "mel"):
        memory = re.fullmatch(
            rf"3 × 0.02 h stereo, --features {features}, 3 workers: ([\d,]+) MB", next(lines))[1]
        assert 20 < float(memory) < 1000
    assert not [*lines]


# ------------------------------------------------------------------------------ the original

def influence(model, codes):
    """Whether each output depends on each code: (code, output …).

    Changes one code at a time. codes: (1, …), with two levels.
    """
    n = codes.numel()
    changes = torch.cat((torch.zeros(1, n), torch.eye(n))).long().view(n + 1, *codes.shape[1:])
    with torch.inference_mode():
        logits = model.double()(codes ^ changes)[:, 0]
    return (logits[1:] - logits[:1]).abs() > 1e-12


def test_an_output_of_the_original_wavenet_sees_its_receptive_field():
    torch.manual_seed(0)
    config = WaveNetConfig(2, 8, 32, stacks_num=2, layers_num=3)
    field, outputs = config.receptive_field, 4
    codes = torch.randint(2, (1, field + outputs - 1))
    lag = torch.arange(outputs) + field - 1 - torch.arange(codes.shape[1])[:, None]
    seen = influence(OriginalWaveNet(config), codes)
    assert torch.equal(seen, (lag >= 0) & (lag < field))


def test_an_output_of_the_original_pixelcnn_sees_all_earlier_codes():
    torch.manual_seed(0)
    codes = torch.randint(2, (1, 3, 5, 5))  # two blocks see the whole image
    seen = influence(OriginalPixelCNN(PixelCNNConfig(2, 3, 48, 48, blocks_num=2)), codes)
    seen = seen.view(3, 5, 5, 3, 5, 5).permute(1, 2, 0, 4, 5, 3).reshape(75, 75)
    assert torch.equal(seen, torch.ones(75, 75, dtype=torch.bool).triu(1))
