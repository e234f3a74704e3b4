"""Values that don't fit a description are refused in one line that names file and field."""

import json
from dataclasses import dataclass
from typing import Annotated

import pytest
from msgspec import Meta

from common.errors import UserError
from common.headers import checked, read_json


@dataclass(frozen=True)
class Inner:
    levels: Annotated[int, Meta(ge=2, le=256)]
    scale: Annotated[float, Meta(ge=0, le=1)] = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner
    names: list[str]


def deep():
    content = []
    for _ in range(100_000):
        content = [content]
    return content


GOOD = {"inner": {"levels": 4}, "names": ["a"]}
WRONG = [
    ({"names": []}, "inner"), ({"inner": {}, "names": []}, "inner: .*levels"),
    ({"inner": {"levels": 1}, "names": []}, "inner.levels"),
    ({"inner": {"levels": 10 ** 30}, "names": []}, "inner.levels"),
    ({"inner": {"levels": True}, "names": []}, "inner.levels"),
    ({"inner": {"levels": "4"}, "names": []}, "inner.levels"),
    ({"inner": {"levels": 4, "scale": float("nan")}, "names": []}, "inner.scale|JSON"),
    ({"inner": {"levels": 4, "scale": float("inf")}, "names": []}, "inner.scale|JSON"),
    ({"inner": {"levels": 4}, "names": "ab"}, "names"),
    ({"inner": {"levels": 4}, "names": ["a\ud800"]}, "no Unicode|truncated"),
    ({"inner": {"levels": 4}, "names": deep()}, "deep|names"), ([], "object")]


def test_fitting_values_become_an_instance():
    assert checked(GOOD, Outer, "file", "mend it") == Outer(Inner(4), ["a"])


def test_fitting_json_becomes_an_instance(tmp_path):
    (tmp_path / "file").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "file", Outer, "mend it") == Outer(Inner(4), ["a"])


@pytest.mark.parametrize("content, named", WRONG)
def test_wrong_values_are_refused_by_file_and_field(content, named):
    with pytest.raises(UserError, match=f"^file: damaged .*({named}).*; mend it$"):
        checked(content, Outer, "file", "mend it")


@pytest.mark.parametrize("content, named", [one for one in WRONG if one[1] != "deep|names"])
def test_wrong_json_is_refused_by_file_and_field(tmp_path, content, named):
    (tmp_path / "file").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"file: damaged .*({named}).*; mend it$"):
        read_json(tmp_path / "file", Outer, "mend it")


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b'{"inner": ' * 100_000, b"{}x"])
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="file: damaged .*; mend it$"):
        read_json(tmp_path / "file", Outer, "mend it")
