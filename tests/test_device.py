"""What a device computes fast: bf16 only where it is fast."""

from pathlib import Path

import pytest
import torch
from forks import PIXELCNN, difference, forked, snapshot_in

from training import device
from training.device import precision_on

CPU = torch.device("cpu")


@pytest.fixture
def has_bf16(monkeypatch):
    """A function: let this processor have bf16, or not."""
    return lambda has: monkeypatch.setattr(device, "_has_bf16", lambda: has)


def test_bf16_is_taken_where_the_processor_has_it(has_bf16, capsys):
    has_bf16(True)
    assert precision_on(CPU, "bf16") == "bf16"
    assert capsys.readouterr().err == ""


def test_elsewhere_fp32_is_and_that_is_said(has_bf16, capsys):
    has_bf16(False)
    assert precision_on(CPU, "bf16") == "fp32"
    (line, ) = capsys.readouterr().err.splitlines()
    assert line.startswith("--precision bf16: ") and "fp32" in line


@pytest.mark.parametrize("where, precision", [("cpu", "fp32"), ("cpu", "tf32"), ("cuda", "bf16"),
                                              ("cuda", "tf32")])
def test_nothing_else_is_changed(has_bf16, capsys, where, precision):
    has_bf16(False)
    assert precision_on(torch.device(where), precision) == precision
    assert capsys.readouterr().err == ""


def test_a_run_without_bf16_is_one_in_fp32(world, tmp_path):
    command = f"{PIXELCNN} -e 1"

    def without_bf16():
        device._has_bf16 = lambda: False

    done = forked(f"{command} --precision bf16 -o {tmp_path}/bf16", world, without_bf16)
    assert done.err.count("--precision bf16: ") == 1
    forked(f"{command} -o {tmp_path}/fp32", world)
    assert difference(*(snapshot_in(tmp_path / name, 8) for name in ("bf16", "fp32"))) == ""


def test_whether_there_is_bf16_is_what_the_processor_says():
    """Linux on x86 lists its instructions; those for bf16 are used if AVX-512's are there."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    if "avx2" not in flags:
        pytest.skip("no list of an x86 processor's instructions")
    if "avx512f" not in flags:
        assert not device._has_bf16()
    if "avx512_bf16" in flags:
        assert device._has_bf16()
