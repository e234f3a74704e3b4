"""Errors that are the user's to mend: scripts print them as one line, never as a traceback."""


class UserError(Exception):
    """Wrong input. The message names the file or flag and says what to do; scripts exit with 2."""

    exit_code = 2


class DivergedError(UserError):
    """A training run that can't go on, through no wrong flag; scripts exit with 1."""

    exit_code = 1
