"""Errors that the user can fix: scripts print them as one line, never as a traceback."""


class UserError(Exception):
    """Wrong input. The message names the file or flag and says what to do; scripts exit with 2.

    parameter: the function's parameter that is wrong, if one is; `message` then begins with its
    value. mentions: a parameter that the message names after a space. In `line()`, which scripts
    print, the flag of the same name takes the place of either.
    """

    exit_code = 2

    def __init__(self, message: str, *, parameter: str | None = None,
                 mentions: str | None = None):
        super().__init__(f"{parameter} {message}" if parameter else message)
        self.parameter, self.mentions = parameter, mentions

    def line(self) -> str:
        """Return the message for the command line."""
        text = f"--{self}" if self.parameter else str(self)
        if self.mentions:
            before, _, after = text.rpartition(f" {self.mentions} ")
            text = f"{before} --{self.mentions} {after}"
        return text


class DivergedError(UserError):
    """The loss of a run is not finite. It can't continue; a restart would diverge again."""

    exit_code = 3


class UnfinishedError(UserError):
    """The task ended early although its input is good: the same command continues it."""


class OutOfMemoryError(UserError):
    """The task needs more memory than is free, perhaps only while another program takes it."""

    exit_code = 1
