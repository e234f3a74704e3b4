"""Compiled kernels are cached for the next run in the first folder that can be written to."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.kernels import compiling
from models.kernels.compiling import KernelCache, cache_folder, sources

ROOT = Path(__file__).resolve().parent.parent

DRAW = """
import torch
from models.wavenet import WaveNet, WaveNetConfig
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds
torch.manual_seed(0)
model = WaveNet(WaveNetConfig(levels=4, hidden_dim=3, out_hidden_dim=3, stacks_num=1, layers_num=2))
print(torch.cat(list(sample_sounds(model, RandomStreams(0, [0, 1]), None, 20)), dim=1).tolist())
"""


@pytest.fixture
def no_folder(tmp_path):
    """A path below which not even root can create anything."""
    file = tmp_path / "file"
    file.write_text("")
    return file / "folder"


@pytest.fixture
def copied(tmp_path):
    """A copy of the code for sampling, where kernels can't be cached beside the sources."""
    for folder in ("common", "models", "datasets", "sampling"):
        shutil.copytree(ROOT / folder, tmp_path / "copied" / folder,
                        ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "copied/sampling/compiled/__pycache__").write_text("")
    return tmp_path / "copied"


def drawn(folder, **environment):
    """The output of sampling on stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=folder, env={**kept, **environment},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_where_kernels_are_cached(monkeypatch, tmp_path, no_folder, copied):
    """In the folder that the environment names, else beside the sources, else at home."""
    file = ROOT / "sampling/compiled/wavenet_kernels.py"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    assert cache_folder(file).parent == tmp_path / "named"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(no_folder))
    assert cache_folder(file).parent == file.parent / "__pycache__"
    file = copied / "sampling/compiled/wavenet_kernels.py"
    assert cache_folder(file).parent == tmp_path / "home/.cache/numba"
    monkeypatch.setenv("HOME", str(no_folder))
    assert cache_folder(file) is None


def test_a_user_without_a_home(monkeypatch):
    """As in a container that is run as any user."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert cache_folder(ROOT / "sampling/compiled/wavenet_kernels.py") is not None


def test_the_sources_of_kernels_are_what_they_import():
    found = {path.relative_to(ROOT).as_posix()
             for path in sources(ROOT / "sampling/compiled/wavenet_kernels.py")}
    # A kernel reads a constant of models/local_conditioning.py. None reads the page or the other
    # network.
    assert {"sampling/compiled/wavenet_kernels.py", "models/kernels/vectors.py",
            "models/local_conditioning.py"} <= found
    assert not found & {"sampling/output/page.py", "sampling/compiled/pixelcnn_kernels.py"}


def test_changed_sources_have_another_cache_folder(monkeypatch, copied):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(copied / "named"))
    monkeypatch.setattr(compiling, "ROOT", copied)
    file = copied / "sampling/compiled/wavenet_kernels.py"
    first = cache_folder(file)
    for unrelated in ("sampling/output/page.py", "sampling/compiled/pixelcnn_kernels.py"):
        (copied / unrelated).write_text("# another")
    other = cache_folder(copied / "sampling/compiled/pixelcnn_kernels.py")
    assert cache_folder(file) == first
    with open(copied / "models/local_conditioning.py", "a") as text:
        text.write("# another")
    second = cache_folder(file)
    assert second != first
    # The earlier folder is gone; that of other kernels, and of another processor, is not.
    assert not first.exists() and other.exists()
    monkeypatch.setattr(compiling, "FEATURES", "+other")
    assert cache_folder(file) not in (first, second) and second.exists()


def test_a_kernel_that_can_not_be_cached_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    cache = KernelCache(ROOT / "sampling/compiled/wavenet_kernels.py")
    failures = [OSError(28, "No space left on device")] * 2

    def call():
        if failures:
            raise failures.pop()
        called.append(1)

    called = []
    cache.prepare("a", call)
    assert called == [1]
    failures += [OSError(28, "No space left on device")] * 4
    with pytest.raises(OSError):
        cache.prepare("b", call)
    assert [path.name for path in tmp_path.rglob("*.ready")] == ["a.ready"]


@pytest.mark.slow
def test_compiles_once_and_says_so(tmp_path):
    first = drawn(ROOT, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert first[1] == "compiling the WaveNet sampler for this processor, once\n"
    assert drawn(ROOT, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == (first[0], "")


@pytest.mark.slow
def test_samples_where_nothing_can_be_cached(copied, no_folder, tmp_path):
    """Every run compiles the kernels and draws the same; a writable home is used."""
    expected, _ = drawn(ROOT)
    for _ in range(2):
        text, said = drawn(copied, NUMBA_CACHE_DIR=str(no_folder), HOME=str(no_folder))
        assert text == expected and "in each run, since no folder can be written" in said
    for said in ("compiling the WaveNet sampler for this processor, once\n", ""):
        assert drawn(copied, HOME=str(tmp_path / "home")) == (expected, said)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 alone")
@pytest.mark.parametrize("name, features, tile", [
    ("haswell", "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2,+popcnt,+f16c", 16), ("x86-64", "+sse2", 8)])
def test_on_a_processor_with_shorter_vectors(tmp_path, name, features, tile):
    """All tests of kernels compiled for AVX2 and for SSE2, where a tile has fewer lanes."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": name,
                   "NUMBA_CPU_FEATURES": features}
    tests = [f"tests/test_{name}.py" for name in (
        "vectors", "products", "categorical", "compiled_wavenet", "compiled_wavenet_memory",
        "compiled_pixelcnn", "compiled_pixelcnn_memory")]
    for command in (["-c", f"from models.kernels.vectors import TILE; assert TILE == {tile}"],
                    ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
