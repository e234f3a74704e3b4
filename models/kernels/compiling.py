"""Compiles kernels with numba, and keeps the machine code on disk for the next run.

    cache = KernelCache(__file__)

    @cache.kernel
    def scale(inputs, factor, outputs): ...

    cache.prepare("example kernel", lambda: scale(nothing, 1.0, nothing))

numba notices a change in a kernel's own file but none in a module that the file imports. So each
file of kernels has a cache folder whose name is a digest of its sources: the file, and whatever of
this repository it imports, directly or not.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock
from numba.core import config, event
from tqdm import tqdm

from models.kernels.vectors import FEATURES

MOST_KERNELS = 3  # in a file
ROOT = Path(__file__).resolve().parents[2]
# Without the GIL, so that threads run kernels side by side. Division by zero is not checked.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}

# A function that its callers contain. It must neither create nor return arrays, because it does not
# count references to them: numba would count each array of a named tuple at each call, which took
# more than half of the time in which one small image is drawn.
_INLINED: dict[str, Any] = {**OPTIONS, "forceinline": True, "_nrt": False}
inlined = numba.njit(**_INLINED)


class KernelCache:
    """Compiles the kernels of one source file.

    file: the source file, below ROOT. folder: where its machine code is kept, None if no folder
    can be written to.
    """

    def __init__(self, file: str | Path) -> None:
        self.folder = cache_folder(Path(file).resolve())

    def kernel(self, function: Callable) -> Callable:
        """A numba function, compiled at its first call, or loaded if that was done before."""
        before = config.CACHE_DIR  # type: ignore[attr-defined] # set when numba is imported
        config.CACHE_DIR = str(self.folder or "")  # type: ignore[attr-defined] # the same
        try:
            return numba.njit(cache=self.folder is not None, **OPTIONS)(function)
        finally:
            config.CACHE_DIR = before  # type: ignore[attr-defined] # the same

    def prepare(self, name: str, call: Callable[[], object]) -> None:
        """Run `call`, which compiles or loads kernels.

        Compiling takes much longer than loading, so it is announced on stderr with `name`, such as
        "WaveNet sampler". One process compiles at a time, because numba writes its index without a
        lock.
        """
        ready = self.folder / f"{name}.ready" if self.folder else None
        with ExitStack() as stack:
            stack.enter_context(event.install_listener(
                "numba:compile", _Announcement(name, is_kept=self.folder is not None)))
            if ready and not ready.exists():
                with suppress(OSError, NotImplementedError):  # a file system without locks
                    stack.enter_context(FileLock(ready.with_name("lock")))
            _run_despite_full_disk(call)
        if ready:
            with suppress(OSError):
                ready.touch()


def _run_despite_full_disk(call: Callable[[], object]) -> None:
    """Run `call` again after each kernel that was compiled but could not be saved."""
    for _ in range(MOST_KERNELS):
        try:
            call()
            return
        except OSError:
            continue
    call()


def cache_folder(file: Path) -> Path | None:
    """The first folder that can be written to, for the kernels in `file`; None if there is none.

    NUMBA_CACHE_DIR comes first, then `__pycache__` beside the file, then ~/.cache/numba. The name
    tells the file, the checkout and the processor, then the sources. Folders of earlier sources of
    the same file are removed.
    """
    processor = config.CPU_NAME  # type: ignore[attr-defined] # set when numba is imported
    owner = _digest(f"{ROOT} {processor} {FEATURES}".encode())
    prefix = f"kernels-{file.stem}-{owner}-"
    name = prefix + _digest(*(source.read_bytes() for source in sources(file)))
    for place in _places(file):
        try:
            (place / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place / name):
                pass
        except OSError:
            continue
        for stale in place.glob(f"{prefix}*"):
            if stale.name != name:
                shutil.rmtree(stale, ignore_errors=True)
        return place / name
    return None


def _places(file: Path) -> Iterator[Path]:
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    yield file.parent / "__pycache__"
    with suppress(RuntimeError):  # a user without a home
        yield Path.home() / ".cache" / "numba"


def sources(file: Path) -> list[Path]:
    """`file` and all files below ROOT that it imports, directly or not: sorted."""
    found, waiting = set(), [file]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported_files(file)
    return sorted(found)


def _imported_files(file: Path) -> Iterator[Path]:
    """The files below ROOT that `file` imports."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            path = ROOT.joinpath(*module.split("."))
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.is_file():
                    yield candidate


def _digest(*contents: bytes) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


class _Announcement(event.Listener):
    """Says on stderr, once, that numba compiles."""

    def __init__(self, name: str, is_kept: bool) -> None:
        kept = "once" if is_kept else "in each run, since no folder can be written to keep it in"
        self._text: str | None = f"compiling the {name} for this processor, {kept}"

    def on_start(self, event: event.Event) -> None:
        if self._text:
            tqdm.write(self._text, file=sys.stderr)
            self._text = None

    def on_end(self, event: event.Event) -> None:
        pass
