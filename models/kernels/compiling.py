"""How the samplers' kernels are compiled, and kept on disk for the next run."""

import contextlib
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numba
from filelock import FileLock
from numba.core import config, event
from tqdm import tqdm

from models.kernels.vectors import FEATURES

MOST_KERNELS = 3  # of a sampler
ROOT = Path(__file__).resolve().parent.parent


def _cache_folder():
    """Where compiled kernels are kept for the next run, or None if no folder can be written.

    numba notices a change in a kernel's own file, but none in a module that it imports: hence a
    folder for each state of these sources, and for each kind of processor, since one home may
    serve many machines. NUMBA_CACHE_DIR, if set, is where it lies.
    """
    here = ROOT / "sampling"
    digest = hashlib.sha256(f"{config.CPU_NAME} {FEATURES}".encode())
    for source in (*sorted(here.glob("*.py")), ROOT / "models" / "pixelcnn.py"):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    places = [here / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # a user without a home
        places.append(Path.home() / ".cache" / "numba")
    if os.environ.get("NUMBA_CACHE_DIR"):
        places.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]))
    for place in places:
        try:
            (place / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place / name):
                return str(place / name)
        except OSError:
            continue
    return None


CACHE = _cache_folder()
if CACHE:
    config.CACHE_DIR = CACHE

# Without the GIL, so that threads can run kernels side by side; division by zero is not checked.
kernel = numba.njit(cache=bool(CACHE), nogil=True, error_model="numpy")
inlined = numba.njit(forceinline=True, nogil=True, error_model="numpy")


class _Announcement(event.Listener):
    """What is said as soon as numba begins to compile anything."""

    def __init__(self, name):
        kept = "once" if CACHE else "in each run, since no folder can be written to keep it in"
        self._text = f"compiling the {name} sampler for this processor, {kept}"

    def on_start(self, event):
        if self._text:
            tqdm.write(self._text, file=sys.stderr)
            self._text = None

    def on_end(self, event):
        pass


def prepare(name, call):
    """Call `call`, at which kernels are compiled, or loaded if they were compiled before.

    To compile takes much longer than to load: it is said on stderr, with `name`. It is done by one
    process at a time, since numba writes its index of what is kept without a lock.
    """
    ready = Path(CACHE, f"{name}.ready") if CACHE else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(event.install_listener("numba:compile", _Announcement(name)))
        if ready and not ready.exists():
            with contextlib.suppress(OSError, NotImplementedError):  # a disk that knows no locks
                stack.enter_context(FileLock(Path(CACHE, "lock")))
        for _ in range(MOST_KERNELS):
            with contextlib.suppress(OSError):  # one is compiled but can't be kept: a full disk
                call()
                break
        else:
            call()
    if ready:
        with contextlib.suppress(OSError):
            ready.touch()
