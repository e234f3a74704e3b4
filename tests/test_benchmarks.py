"""The benchmark scripts run, on made-up data and for a moment."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_commands import write_mnist, write_sounds

SCRIPT = Path(__file__).resolve().parent / "benchmarks/likelihood.py"


@pytest.mark.parametrize("network", ["pixelcnn", "wavenet"])
def test_likelihood_trains_by_the_clock_and_tells_the_test_likelihood(network, tmp_path):
    write_mnist(tmp_path / "MNIST/raw")
    write_sounds(tmp_path / "anna", [f"{digit}_anna_{take}.wav" for digit in (0, 1)
                                     for take in (0, 4, 5, 6)])
    done = subprocess.run(
        [sys.executable, SCRIPT, network, "--data", tmp_path, "--minutes", "0.02", "--hidden_dim",
         "6", "--out_hidden_dim", "6", "--blocks_num", "2", "--stacks_num", "1", "--layers_num",
         "3", "--target_length", "500", "--threads", "1"],
        capture_output=True, text=True, check=True)
    bits = float(re.search(r"test: ([\d.]+) bits/dim", done.stdout)[1])
    levels = 2 if network == "pixelcnn" else 256
    assert 0 < bits < 1.1 * math.log2(levels)
    assert int(re.search(r"([\d,]+) updates", done.stdout)[1].replace(",", "")) > 1
