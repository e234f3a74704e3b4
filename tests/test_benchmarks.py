"""The benchmark scripts run, on made-up data and for a moment."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_commands import write_mnist, write_sounds

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


def run(script, *args):
    """What the script prints."""
    return subprocess.run([sys.executable, BENCHMARKS / script, *map(str, args)],
                          capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("network", ["pixelcnn", "wavenet"])
def test_likelihood_trains_by_the_clock_and_tells_the_test_likelihood(network, tmp_path):
    write_mnist(tmp_path / "MNIST/raw")
    write_sounds(tmp_path / "anna", [f"{digit}_anna_{take}.wav" for digit in (0, 1)
                                     for take in (0, 4, 5, 6)])
    printed = run(
        "likelihood.py", network, "--data", tmp_path, "--minutes", 0.02, "--hidden_dim", 6,
        "--out_hidden_dim", 6, "--blocks_num", 2, "--stacks_num", 1, "--layers_num", 3,
        "--target_length", 500, "--threads", 1)
    bits = float(re.search(r"test: ([\d.]+) bits/dim", printed)[1])
    levels = 2 if network == "pixelcnn" else 256
    assert 0 < bits < 1.1 * math.log2(levels)
    assert int(re.search(r"([\d,]+) updates", printed)[1].replace(",", "")) > 1
    if network == "wavenet":
        more = float(re.search(r"--precision bf16: ([+-][\d.]+) bits/dim", printed)[1])
        assert 0 < abs(more) < 0.05


def test_sampling_speed_beside_its_limit():
    only = ["32 wide, 5×10, 1 sound, bf16", "32 wide, 5 blocks, 4 levels, 1 image"]
    printed = run("sampling.py", "--seconds", 0.1, "--threads", 1, "--only", *only)
    machine, first, _, header, _, *rows = printed.splitlines()
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
