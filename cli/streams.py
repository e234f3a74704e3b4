"""Standard output and error that are closed, full, or a terminal that obeys control characters."""

import io
import os
import sys
from contextlib import contextmanager, suppress

from common.errors import UserError
from common.text import for_terminal


class OutputError(UserError):
    """Standard output took less than was printed."""


class Output:
    """What is known of standard output in the context of `usable`."""

    def __init__(self, stream):
        self._stream = stream

    def finish(self):
        """Write what waits. Raises OutputError if anything was lost, or BrokenPipeError."""
        self._stream.flush()
        error = getattr(_raw(self._stream), "error", None)
        if error:
            raise OutputError(f"standard output: can't be written ({error.strerror}), what was "
                              "printed is lost; make room, or send it elsewhere")


@contextmanager
def usable():
    """In its context, that of an `Output`, `print` always works.

    What a full disk does not take is lost, so that the work goes on. A stream that was closed takes
    everything. Nobody may read standard output any more: BrokenPipeError. Control characters are
    escaped, see `common.text.for_terminal`.
    """
    before = sys.stdout, sys.stderr
    _fill_closed()
    sys.stdout = _usable(sys.stdout, 1, lenient=False)
    sys.stderr = _usable(sys.stderr, 2, lenient=True)
    ours = sys.stdout, sys.stderr
    try:
        yield Output(sys.stdout)
    finally:
        for stream in ours:
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def is_closed():
    """Whether there was no standard output when this program began."""
    return sys.__stdout__ is None


def _fill_closed():
    """Open what was closed, so that no other file takes its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number


class _Descriptor(io.FileIO):
    """A file descriptor that takes everything. error: the first that it met, or None."""

    def __init__(self, number, lenient):
        super().__init__(number, "wb", closefd=False)
        self.lenient, self.error = lenient, None

    def write(self, content):
        """How many bytes of `content` were written, or lost."""
        try:
            return super().write(content)
        except BrokenPipeError:
            if not self.lenient:
                raise
        except OSError as error:
            self.error = self.error or error
        return len(content)


class _Text(io.TextIOWrapper):
    """Text without control characters that a terminal would obey."""

    def write(self, text):
        """Write `text`, returning its length."""
        super().write(for_terminal(text))
        return len(text)


def _usable(stream, number, lenient):
    """`stream`, or one in its place that is written to the file descriptor `number`."""
    descriptor = _Descriptor(number, lenient)
    if stream is None:
        return _Text(io.BufferedWriter(descriptor), encoding="utf-8", errors="backslashreplace")
    stream.flush()
    if not isinstance(_raw(stream), io.FileIO) or stream.fileno() != number:
        stream.reconfigure(errors="backslashreplace")  # a folder's name may be no text
        return stream  # of a test
    return _Text(descriptor if stream.write_through else io.BufferedWriter(descriptor),
                 encoding=stream.encoding, errors="backslashreplace",
                 line_buffering=stream.line_buffering, write_through=stream.write_through)


def _raw(stream):
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
