"""The device that --gpu selects, and the precisions that a device supports."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forks import PIXELCNN, difference, forked, snapshot_in

from common.errors import UserError
from models.pixelcnn import PixelCNN, PixelCNNConfig
from training import device
from training.device import select_device, supported_precision
from training.likelihood import matmul_precision

CPU = torch.device("cpu")


@pytest.fixture
def has_bf16(monkeypatch):
    """A function: let this processor have bf16, or not."""
    return lambda has: monkeypatch.setattr(device, "_has_bf16", lambda: has)


@pytest.fixture
def gpus(monkeypatch):
    """A function: let this machine have so many GPUs of a compute capability, or broken ones."""
    def there_are(count, capability=(9, 0), error=None):
        def set_device(number):
            if error:
                raise error

        cuda = SimpleNamespace(is_available=lambda: count > 0, device_count=lambda: count,
                               set_device=set_device,
                               get_device_capability=lambda device: capability)
        monkeypatch.setattr(device, "torch", SimpleNamespace(**{
            **vars(torch), "cuda": cuda, "zeros": lambda size, device: torch.zeros(size)}))

    flags = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32"),
             (torch.backends.cudnn, "deterministic")]
    before = [getattr(*flag) for flag in flags]
    yield there_are
    for flag, value in zip(flags, before, strict=True):
        setattr(*flag, value)


# ------------------------------------------------------------------------------ which

def test_gpu_n_is_the_device_n(gpus, capsys):
    gpus(2)
    assert [select_device(n) for n in (-1, 0, 1)] == [CPU, torch.device("cuda", 0),
                                                  torch.device("cuda", 1)]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="^--gpu 2: there is no such device, .* has 0 to 1; "):
        select_device(2)


def test_each_process_of_a_machine_has_a_device_of_its_own(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device(0) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="^--gpu 2, of processes that have devices 1, 2, …: there"):
        select_device(1)


def test_without_cuda_the_cpu_is_used_and_reported(gpus, capsys):
    gpus(0)
    assert select_device(3) == CPU
    assert capsys.readouterr().err == "--gpu 3: no CUDA on this machine, running on the CPU\n"


def test_a_device_that_cannot_be_used_is_named_in_one_line(gpus):
    gpus(1, error=RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\n"
                               "CUDA kernel errors might be reported asynchronously"))
    with pytest.raises(UserError) as found:
        select_device(0)
    assert str(found.value) == ("--gpu 0: can't be used (CUDA error: all CUDA-capable devices are "
                                "busy or unavailable); choose another, or -1 for the CPU")


# ------------------------------------------------------------------------------ how exactly

def tf32_allowed():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_cuda_computes_deterministically_in_single_precision(gpus):
    """What samplers compute there; torch itself would take tf32 for convolutions."""
    gpus(1)
    select_device(0)
    assert tf32_allowed() == (False, False)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("precision, allowed", [("fp32", False), ("bf16", False), ("tf32", True)])
def test_convolutions_have_the_precision_of_matrix_products(precision, allowed):
    before = tf32_allowed()
    with matmul_precision(PixelCNN(PixelCNNConfig(hidden_dim=1, out_hidden_dim=1)), precision):
        assert tf32_allowed() == (allowed, allowed)
    assert tf32_allowed() == before


# ------------------------------------------------------------------------------ how fast

@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_gpu_too_old_for_a_precision_uses_fp32_and_reports_it(gpus, capsys, precision):
    gpus(1, capability=(7, 5))
    assert supported_precision(torch.device("cuda", 0), "fp32") == "fp32"
    assert capsys.readouterr().err == ""
    assert supported_precision(torch.device("cuda", 0), precision) == "fp32"
    (line, ) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"--precision {precision}: this GPU ") and "fp32" in line


def test_bf16_is_used_where_the_processor_has_it(has_bf16, capsys):
    has_bf16(True)
    assert supported_precision(CPU, "bf16") == "bf16"
    assert capsys.readouterr().err == ""


def test_a_processor_without_bf16_uses_fp32_and_reports_it(has_bf16, capsys):
    has_bf16(False)
    assert supported_precision(CPU, "bf16") == "fp32"
    (line, ) = capsys.readouterr().err.splitlines()
    assert line.startswith("--precision bf16: ") and "fp32" in line


@pytest.mark.parametrize("where, precision", [("cpu", "fp32"), ("cpu", "tf32"), ("cuda", "bf16"),
                                              ("cuda", "tf32")])
def test_supported_precisions_are_not_changed(has_bf16, gpus, capsys, where, precision):
    has_bf16(False)
    gpus(1, capability=(8, 0))
    assert supported_precision(torch.device(where), precision) == precision
    assert capsys.readouterr().err == ""


def test_a_run_without_bf16_is_the_run_in_fp32(world, tmp_path):
    command = f"{PIXELCNN} -e 1"

    def without_bf16():
        device._has_bf16 = lambda: False

    done = forked(f"{command} --precision bf16 -o {tmp_path}/bf16", world, without_bf16)
    assert done.err.count("--precision bf16: ") == 1
    forked(f"{command} -o {tmp_path}/fp32", world)
    assert difference(*(snapshot_in(tmp_path / name, 8) for name in ("bf16", "fp32"))) == ""


def test_bf16_is_detected_as_the_processor_reports_it():
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
