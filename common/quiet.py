"""Keep libraries from writing to the terminal: we report problems ourselves, and name the file."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TextIO


class SilentDescriptor:
    """A context in which anything written to file descriptor 2 is lost. Contexts may overlap.

    All threads of the process share the descriptor, so keep the contexts short, or use
    `silent_library`, which still lets Python code write. Yields a descriptor that leads to the
    terminal; None if descriptor 2 is closed.
    """

    def __init__(self) -> None:
        self._lock, self._depth = Lock(), 0
        self._terminal: int | None = None

    def __enter__(self) -> int | None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._redirect()
            return self._terminal

    def _redirect(self) -> None:
        try:
            self._terminal = os.dup(2)
        except OSError:  # the process has no such descriptor
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
        except OSError:  # no descriptor is left
            os.close(self._terminal)
            self._terminal = None
            return
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth and self._terminal is not None:
                os.dup2(self._terminal, 2)
                os.close(self._terminal)
                self._terminal = None


silent_stderr = SilentDescriptor()


@contextmanager
def silent_library(name: str) -> Iterator[TextIO]:
    """Silence the library `name`: its warnings, its log, and what its C code writes to stderr.

    Meanwhile sys.stderr still leads to the terminal; yields it. Only one thread at a time may
    enter, because the whole process is affected; others may use the library meanwhile.
    """
    logger = logging.getLogger(name)
    level = logger.level
    with warnings.catch_warnings(), _python_still_writes():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield sys.stderr
        finally:
            logger.setLevel(level)


@contextmanager
def _python_still_writes() -> Iterator[None]:
    """Lose what C code writes to stderr, but not what Python code writes."""
    stream = sys.stderr
    if stream is None:  # it is closed, so nothing is written there
        yield
        return
    stream.flush()
    with silent_stderr as terminal:
        if terminal is None or _number(stream) != 2:
            yield
            return
        try:
            with open(terminal, "w", buffering=1, encoding=stream.encoding, errors=stream.errors,
                      closefd=False) as sys.stderr:
                yield
        finally:
            sys.stderr = stream


def _number(stream: TextIO) -> int | None:
    """Return the file descriptor of `stream`; None if it has none."""
    try:
        return stream.fileno()
    except OSError:  # also io.UnsupportedOperation
        return None
