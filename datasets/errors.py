"""Errors that are the user's to mend: scripts print them as one line, never as a traceback."""


class UserError(Exception):
    """Wrong input. The message names the file or flag and says what to do; scripts exit with 2."""

    exit_code = 2
