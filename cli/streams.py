"""Makes standard output and error safe to print to: closed, full, or read by a terminal."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from common.errors import UserError
from common.text import for_terminal


class OutputError(UserError):
    """Standard output did not take everything that was printed."""


class Output:
    """Standard output in the context of `usable`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def finish(self) -> None:
        """Flush. Raises OutputError if anything was lost, or BrokenPipeError."""
        self._stream.flush()
        error = getattr(_raw(self._stream), "error", None)
        if error:
            raise OutputError(f"standard output: can't be written ({error.strerror}), what was "
                              "printed is lost; make room, or send it elsewhere")


@contextmanager
def usable() -> Iterator[Output]:
    """In its context `print` always works.

    Text that a full disk refuses is lost, so that the work continues. A stream that was closed
    discards everything. If the reader of standard output is gone, `print` raises BrokenPipeError.
    Control characters are escaped, see `common.text.for_terminal`.
    """
    before = sys.stdout, sys.stderr
    _open_closed_descriptors()
    sys.stdout = _usable_stream(sys.stdout, 1, lenient=False)
    sys.stderr = _usable_stream(sys.stderr, 2, lenient=True)
    ours = sys.stdout, sys.stderr
    try:
        yield Output(sys.stdout)
    finally:
        for stream in ours:
            with suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def is_closed() -> bool:
    """Whether standard output was closed when this program began."""
    return sys.__stdout__ is None


def _open_closed_descriptors() -> None:
    """Open /dev/null in place of closed streams, so that no other file gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number


class _Descriptor(io.FileIO):
    """A file descriptor whose writes never fail.

    lenient: also ignore that the reader is gone. error: the first error that it met, or None.
    """

    def __init__(self, number: int, lenient: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self.lenient = lenient
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write `content` or discard it; return how many bytes that was."""
        try:
            return super().write(content)
        except BrokenPipeError:
            if not self.lenient:
                raise
        except OSError as error:
            self.error = self.error or error
        return len(content)


class _EscapingText(io.TextIOWrapper):
    """Escapes control characters that a terminal would obey."""

    def write(self, text: str) -> int:
        """Write `text` and return its length."""
        super().write(for_terminal(text))
        return len(text)


def _usable_stream(stream: Any, number: int, lenient: bool) -> Any:
    """Return `stream`, or a replacement that writes to the file descriptor `number`."""
    descriptor: Any = _Descriptor(number, lenient)
    if stream is None:
        return _EscapingText(io.BufferedWriter(descriptor), encoding="utf-8",
                             errors="backslashreplace")
    stream.flush()
    if not isinstance(_raw(stream), io.FileIO) or stream.fileno() != number:
        stream.reconfigure(errors="backslashreplace")  # the name of a folder may be no text
        return stream  # a test has replaced it
    return _EscapingText(descriptor if stream.write_through else io.BufferedWriter(descriptor),
                         encoding=stream.encoding, errors="backslashreplace",
                         line_buffering=stream.line_buffering, write_through=stream.write_through)


def _raw(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
