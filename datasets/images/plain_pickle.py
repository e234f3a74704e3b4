"""Read pickles of plain values and byte arrays, like CIFAR-10's, without unpickling.

pickle runs what a file tells it to. Even a restricted one can be made to fill the memory or crash
Python. Here the standard library only parses the file into instructions, and we carry out the few
harmless ones.
"""

import math
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# An honest file has fewer than ten instructions for an image of 3,072 bytes.
FEWEST_ALLOWED, BYTES_AN_INSTRUCTION = 10_000, 100
MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1")
TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
OLD_BYTES = ("STRING", "BINSTRING", "SHORT_BINSTRING")  # Python 2's
NEW_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
GET = ("GET", "BINGET", "LONG_BINGET")
PUT = ("PUT", "BINPUT", "LONG_BINPUT")
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NOTHING = ("PROTO", "FRAME", "STOP")


class NotPlainError(ValueError):
    """The pickle holds, or asks for, something else than plain values; the text says what."""


@dataclass
class Array:
    """A numpy array as a pickle describes it. state: (shape, dtype, order "C" or "F", bytes)."""

    state: tuple | None = None

    def built(self) -> np.ndarray:
        """Return the array; raise NotPlainError unless it is one of bytes."""
        shape, dtype, order, content = self.state or (None,) * 4
        if not isinstance(dtype, DType) or dtype.name not in ("u1", "uint8"):
            raise NotPlainError("an array that is not of bytes")
        if isinstance(content, str):  # Python 2's, as Python 3 may have read and written it
            content = content.encode("latin-1")
        if (not isinstance(shape, tuple) or not all(type(size) is int and size >= 0
                                                    for size in shape)
                or len(shape) > 4 or order not in ("C", "F")
                or not isinstance(content, (bytes, bytearray))
                or math.prod(shape) != len(content)):
            raise NotPlainError("an array whose shape and bytes do not go together")
        return np.frombuffer(content, np.uint8).reshape(shape, order=order)


@dataclass(frozen=True)
class DType:
    """The name of a numpy dtype."""

    name: object


@dataclass(frozen=True)
class Function:
    """A function that a pickle may call."""

    name: str


FUNCTIONS = {(module, name): Function(name) for module, name in (
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"))}


def read_plain_pickle(content: bytes) -> Mapping:
    """Return the dictionary in a pickle of any protocol, with str keys.

    Values are int, bool, None, str, bytes, lists, tuples and dictionaries of these, and uint8
    arrays; text that Python 2 wrote is bytes. Takes time and memory in proportion to `content`.
    Raises ValueError for anything else.
    """
    try:
        found = _run(content)
    except (IndexError, KeyError, TypeError, UnicodeError, OverflowError, AttributeError) as error:
        raise ValueError(f"no pickle ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise NotPlainError("no dictionary")
    return {name: value.built() if isinstance(value, Array) else value
            for name, value in found.items()}


def _run(content):
    """Carry out the instructions of a pickle; return what they leave on the stack."""
    stack: list = []
    memo: dict[Any, Any] = {}
    most = FEWEST_ALLOWED + len(content) // BYTES_AN_INSTRUCTION

    def since_mark():
        """Pop everything above the last mark."""
        values = []
        while (value := stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        name = instruction.name
        if count > most:
            raise NotPlainError("more instructions than its bytes are worth")
        if name == "MARK":
            stack.append(MARK)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in NUMBERS or name in TEXTS or name in NEW_BYTES:
            stack.append(argument)
        elif name in OLD_BYTES:
            stack.append(argument.encode("latin-1"))
        elif name in GET:
            stack.append(memo[argument])
        elif name in PUT:
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in TUPLES:
            number = TUPLES[name]
            values = [stack.pop() for _ in range(number)][::-1]
            stack.append(tuple(values))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name in ("TUPLE", "LIST"):
            values = since_mark()
            stack.append(values if name == "LIST" else tuple(values))
        elif name in ("APPEND", "APPENDS"):
            values = [stack.pop()] if name == "APPEND" else since_mark()
            _of_type(stack[-1], list).extend(values)
        elif name in ("DICT", "SETITEM", "SETITEMS"):
            values = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else since_mark()
            if name == "DICT":
                stack.append({})
            _of_type(stack[-1], dict).update(zip(map(_key, values[::2]), values[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            where = (tuple(argument.split(" ", 1)) if name == "GLOBAL"
                     else (stack.pop(), stack.pop())[::-1])
            stack.append(_function(*where))
        elif name == "REDUCE":
            values = _of_type(stack.pop(), tuple)
            stack.append(_called(_of_type(stack.pop(), Function).name, values))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Array):
                _, shape, dtype, fortran, data = state
                stack[-1].state = shape, dtype, "F" if fortran else "C", data
            else:  # a dtype's state only holds the byte order, which bytes don't have
                _of_type(stack[-1], DType)
        elif name not in NOTHING:
            raise NotPlainError(f"instruction {name}")
    found, = stack
    return found


def _of_type(value, kind):
    """`value`, which must be of that type."""
    if not isinstance(value, kind):
        raise TypeError(kind)
    return value


def _key(value):
    """Return a dictionary's key as text, whichever Python wrote it. Nothing else is hashed."""
    return value.decode() if isinstance(value, bytes) else _of_type(value, str)


def _function(module, name):
    """Look up a function that a pickle may call."""
    found = isinstance(module, str) and isinstance(name, str) and FUNCTIONS.get((module, name))
    if not found:
        raise NotPlainError(f"it asks for {module}.{name}"[:100])
    return found


def _called(name, values):
    """Return what a call of a function makes: an Array or DType to fill in, or bytes."""
    if name == "encode":
        return values[0].encode("latin-1")  # Python 3 writes bytes like this for Python 2
    if name == "dtype":
        return DType(values[0].decode() if isinstance(values[0], bytes) else values[0])
    if name == "_frombuffer":
        content, dtype, shape, order = values
        return Array((shape, dtype, order, content))
    return Array()
