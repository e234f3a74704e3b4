"""Libraries kept from writing to the terminal: we say it ourselves, and name the file."""

import logging
import os
import sys
import warnings
from contextlib import contextmanager


@contextmanager
def silent_library(name: str):
    """In its context the library `name` prints nothing: no warning, note, or message from C code.

    Yields the stream that still leads to the terminal, which sys.stderr is meanwhile. To be used by
    one thread at a time, in whose context others may use the library: what it changes is of the
    whole process.
    """
    logger = logging.getLogger(name)
    level = logger.level
    with warnings.catch_warnings(), _file_descriptor_2_silent():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield sys.stderr
        finally:
            logger.setLevel(level)


@contextmanager
def _file_descriptor_2_silent():
    """In its context what C code writes to stderr is lost; what Python code writes is not."""
    stream = sys.stderr
    try:
        stream.flush()
        terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, AttributeError):  # it is closed, so nothing is written there
        yield
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        if _number(stream) != 2:
            yield
            return
        with open(terminal, "w", buffering=1, encoding=stream.encoding, errors=stream.errors,
                  closefd=False) as sys.stderr:
            yield
    finally:
        sys.stderr = stream
        os.dup2(terminal, 2)
        os.close(terminal)


def _number(stream):
    """The file descriptor of a stream, None if it has none."""
    try:
        return stream.fileno()
    except OSError:  # also io.UnsupportedOperation
        return None
