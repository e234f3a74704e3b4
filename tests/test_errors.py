"""Errors are one line that names the file or the flag."""

import pickle

import pytest

from common.errors import UnfinishedError, UserError
from common.files import os_errors_as_lines


def test_a_parameter_is_named_as_a_flag_on_the_command_line():
    error = UserError("9: out of range; give 1 to 8", parameter="levels")
    for same in (error, pickle.loads(pickle.dumps(error))):
        assert str(same) == "levels 9: out of range; give 1 to 8"
        assert same.line() == "--levels 9: out of range; give 1 to 8"
    assert UserError("x.wav: is empty").line() == "x.wav: is empty"


def test_an_os_error_becomes_a_line(tmp_path):
    for name, problem, missing, line in (
            ("a", "can't be read", "", "a: can't be read (No such file or directory); fix it"),
            ("a", "", "", "a: No such file or directory; fix it"),
            ("a", "can't be read", "missing; add it", "a: missing; add it"),
            ("", "can't be read", "missing; add it", ": can't be read (Is a directory); fix it")):
        with pytest.raises(UserError) as raised, os_errors_as_lines(name, problem, "fix it",
                                                                    missing=missing):
            (tmp_path / name).open().close()
        assert str(raised.value) == line
    with pytest.raises(UnfinishedError) as raised, os_errors_as_lines(
            "a", "", "make room", UnfinishedError, parameter="output"):
        raise OSError("disk full")
    assert raised.value.line() == "--output a: disk full; make room"


def test_a_closed_pipe_and_other_errors_pass():
    for error in (BrokenPipeError, ValueError, KeyboardInterrupt):
        with pytest.raises(error), os_errors_as_lines("a", "can't be written", "make room"):
            raise error


def test_the_command_line_names_flags_where_a_library_names_parameters():
    error = UserError("a.wav: 1 seconds long, shorter than min_seconds 2; give less",
                      mentions="min_seconds")
    assert str(error) == "a.wav: 1 seconds long, shorter than min_seconds 2; give less"
    assert error.line() == "a.wav: 1 seconds long, shorter than --min_seconds 2; give less"
