"""Errors that are the user's to mend: scripts print them as one line, never as a traceback."""


class UserError(Exception):
    """Wrong input. The message names the file or flag and says what to do; scripts exit with 2."""

    exit_code = 2


class DivergedError(UserError):
    """A run whose loss is not finite: it can't go on, and begun again would come to the same."""

    exit_code = 3


class UnfinishedError(UserError):
    """What ended early through no fault of its input: begun again, it goes on where it stopped."""


class OutOfMemoryError(UserError):
    """More was asked for than fits, or another program took it: so it may fit another time."""

    exit_code = 1
