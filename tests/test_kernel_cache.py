"""Compiled kernels are kept for the next run, wherever something can be written."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.kernels import compiling

ROOT = Path(__file__).resolve().parent.parent

DRAW = """
import torch
from models.wavenet import WaveNet, WaveNetConfig
from sampling.random_streams import Draws
from sampling.wavenet import sample
torch.manual_seed(0)
model = WaveNet(WaveNetConfig(levels=4, hidden_dim=3, out_hidden_dim=3, stacks_num=1, layers_num=2))
print(torch.cat(list(sample(model, Draws(0, [0, 1]), None, 20)), dim=1).tolist())
"""


@pytest.fixture
def no_folder(tmp_path):
    """A path below which nothing can be made, not even by root."""
    file = tmp_path / "file"
    file.write_text("")
    return file / "folder"


@pytest.fixture
def sources(tmp_path):
    """A copy of all that is needed to draw, where kernels can't be kept beside the sources."""
    for folder in ("models", "datasets", "sampling"):
        shutil.copytree(ROOT / folder, tmp_path / "sources" / folder,
                        ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "sources" / "sampling" / "__pycache__").write_text("")
    return tmp_path / "sources"


def drawn(sources, **environment):
    """What drawing prints, on stdout and on stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=sources, env={**kept, **environment},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_where_kernels_are_kept(monkeypatch, tmp_path, no_folder):
    """First where the environment says, then beside the sources, then at home, if anywhere."""
    folder = compiling._cache_folder()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "named"))
    name = Path(folder).name
    assert compiling._cache_folder() == str(tmp_path / "named" / name)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(no_folder))
    assert compiling._cache_folder() == str(ROOT / "sampling" / "__pycache__" / name)
    (tmp_path / "sampling").mkdir()
    (tmp_path / "sampling" / "__pycache__").write_text("")
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.setattr(compiling, "ROOT", tmp_path)
    assert Path(compiling._cache_folder()).parent == tmp_path / "home" / ".cache" / "numba"
    monkeypatch.setenv("HOME", str(no_folder))
    assert compiling._cache_folder() is None


def test_a_user_without_a_home(monkeypatch, tmp_path):
    """As in a container that is run as any user."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert compiling._cache_folder() is not None


def test_other_sources_and_processors_have_other_kernels(monkeypatch, sources):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(sources / "named"))
    monkeypatch.setattr(compiling, "ROOT", sources)
    folders = [compiling._cache_folder()]
    for file in ("sampling/kernels.py", "models/pixelcnn.py"):
        with open(sources / file, "a") as text:
            text.write("# another\n")
        folders.append(compiling._cache_folder())
    monkeypatch.setattr(compiling, "FEATURES", "+other")
    folders.append(compiling._cache_folder())
    assert len(set(folders)) == 4 and folders[-1] == compiling._cache_folder()


def test_a_kernel_that_can_not_be_kept_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "CACHE", str(tmp_path))
    failures = [OSError(28, "No space left on device")] * 2

    def call():
        if failures:
            raise failures.pop()
        called.append(1)

    called = []
    compiling.prepare("a", call)
    assert called == [1]
    failures += [OSError(28, "No space left on device")] * 4
    with pytest.raises(OSError):
        compiling.prepare("b", call)
    assert [path.name for path in tmp_path.glob("*.ready")] == ["a.ready"]


@pytest.mark.slow
def test_compiles_once_and_says_so(tmp_path):
    first = drawn(ROOT, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert first[1] == "compiling the WaveNet sampler for this processor, once\n"
    assert drawn(ROOT, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == (first[0], "")


@pytest.mark.slow
def test_draws_where_nothing_can_be_kept(sources, no_folder, tmp_path):
    """The same, but compiled anew in every run; a home that can be written to is used."""
    expected, _ = drawn(ROOT)
    for _ in range(2):
        text, said = drawn(sources, NUMBA_CACHE_DIR=str(no_folder), HOME=str(no_folder))
        assert text == expected and "in each run, since no folder can be written" in said
    for said in ("compiling the WaveNet sampler for this processor, once\n", ""):
        assert drawn(sources, HOME=str(tmp_path / "home")) == (expected, said)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86 alone")
def test_on_a_processor_with_shorter_vectors(tmp_path):
    """All tests of the kernels as compiled for AVX2, where a tile has half as many lanes."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_CPU_NAME": "haswell",
                   "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+bmi,+bmi2,+popcnt,+f16c"}
    tests = [f"tests/test_{name}.py" for name in (
        "vectors", "kernels", "compiled_wavenet", "compiled_wavenet_memory")]
    for command in (["-c", "from models.kernels.vectors import TILE; assert TILE == 32"],
                    ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
