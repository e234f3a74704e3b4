"""The training scripts in forks of this process: importing torch takes seconds, a fork does not."""

import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure  # noqa: F401 - once for all forks; so the next two
import torch
import torch._dynamo
import torch.utils.tensorboard
from test_commands import write_mnist, write_sounds

import infer_pixelcnn
import infer_wavenet
import preprocess
import train_pixelcnn
import train_wavenet
from cli.script import run_script
from training.extensions.label_embeddings import LabelEmbeddings
from training.extensions.plots import PlotReport

SCRIPTS = {f"{script.__name__}.py": script for script in (
    train_pixelcnn, infer_pixelcnn, preprocess, train_wavenet, infer_wavenet)}

# Small runs of both networks on what `write_data` leaves: 8 updates an epoch, the last a small one.
PIXELCNN = ("train_pixelcnn.py --data data --height 8 --width 8 --validation 0.22 --binarize "
            "sampled --flip -d 6 -n 2 -b 4 -e 3")
WAVENET = "train_wavenet.py -d corpus --hidden_dim 4 --out_hidden_dim 4 -b 2 -e 3"
UPDATES = 24  # of either


class Ended(NamedTuple):
    """code: the exit code, below 0 the signal that it died of."""

    code: int
    out: str
    err: str


class Fork:
    """A script with its flags, running in a fork of this process, in `folder`.

    prepare: called there first; such as to let it die at a certain moment.
    """

    def __init__(self, command, folder, prepare=None, environment=()):
        script, *flags = shlex.split(command)
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        with suppress(OSError):  # in both, whichever is first
            os.setpgid(self.pid, self.pid)
        if self.pid:
            return
        code = 70
        try:
            for number, file in zip((1, 2), self._files, strict=True):
                os.dup2(file.fileno(), number)
            for name, number in (("stdout", 1), ("stderr", 2)):
                setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
            os.chdir(folder)
            os.environ.update(environment)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            torch.cuda.is_available = lambda: False  # a fork can't use what its parent has begun to
            torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
            sys.argv = [script, *flags]
            # Drawing takes most of such a small run's time.
            PlotReport.__call__ = LabelEmbeddings.__call__ = lambda *_: None
            if prepare:
                prepare()
            run_script(SCRIPTS[script].main)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            os._exit(code)

    def send(self, number):
        """Send it and its own children a signal, as a terminal does."""
        os.killpg(self.pid, number)

    def wait(self, seconds=60):
        """Wait for its end, so long at most: an `Ended`."""
        limit = time.monotonic() + seconds
        while not (end := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > limit:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"did not end in {seconds} s: {self.texts()}")
            time.sleep(0.005)
        with suppress(ProcessLookupError):
            self.send(signal.SIGKILL)  # those that it read data with, if they have not noticed
        return Ended(os.waitstatus_to_exitcode(end[1]), *self.texts())

    def texts(self):
        """What it has written to stdout and stderr so far."""
        return [os.pread(file.fileno(), 1 << 20, 0).decode() for file in self._files]


def forked(command, folder, prepare=None, code=0, environment=()):
    """Run a script to its end, the exit code being as expected: an `Ended`."""
    ended = Fork(command, folder, prepare, environment).wait()
    assert ended.code == code, (command, *ended)
    return ended


def refused(command, folder):
    """The one line on stderr of a script that ends with exit code 2."""
    line, = forked(command, folder, code=2).err.splitlines()
    assert line.startswith("error: ")
    return line


def once(folder, name, flags=""):
    """A function of a command: the folder, in `folder`, of that run with `flags`, which is run
    when it is asked for first."""
    done = {}

    def run(command):
        if command not in done:
            done[command] = folder / f"{name}_{len(done)}"
            forked(f"{command} {flags} -o {done[command]}", folder)
        return done[command]

    return run


def write_data(folder):
    """Digits and a corpus of sounds, for `PIXELCNN` and `WAVENET` to be run in `folder`."""
    write_mnist(folder / "data/MNIST/raw")
    write_sounds(folder / "sounds", [f"p225_{i:03}.wav" for i in range(1, 5)], seconds=0.11)
    forked("preprocess.py --data sounds --output corpus --rate 4000 --stacks_num 1 --layers_num 3 "
           "--target_length 93 --workers 1", folder)


def snapshot_in(folder, iteration=UPDATES):
    """The content of a snapshot."""
    return torch.load(Path(folder) / f"snapshot_iter_{iteration}", weights_only=True)


def difference(a, b, path=""):
    """Where two contents of files differ, "" if nowhere; times are not looked at."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = [*a, *(name for name in b if name not in a)]
        found = (difference(a.get(name), b.get(name), f"{path}/{name}") for name in names
                 if name not in ("elapsed_time", "seconds", "samples_per_second", "resumed_at",
                                 "restart", "last", "last_to_stay", "removable"))
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{path}: {len(a)} and {len(b)} items"
        found = (difference(x, y, f"{path}/{i}") for i, (x, y) in enumerate(zip(a, b, strict=True)))
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return "" if torch.equal(a, b) else path
    else:
        return "" if a == b else f"{path}: {a} and {b}"
    return next((text for text in found if text), "")
