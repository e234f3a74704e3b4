"""Points in a run, and how much lies between two of them, in updates or in seconds."""

from dataclasses import dataclass
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in a run: after which update, and after how many seconds of training."""

    iteration: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Every:
    """An interval: so many updates, or so many seconds of training."""

    number: int
    in_seconds: bool = False

    def __str__(self) -> str:
        return f"{self.number}{'s' if self.in_seconds else ''}"

    def has_passed(self, now: Moment, since: Moment) -> bool:
        """Whether the interval has passed between two moments."""
        if self.in_seconds:
            return now.seconds - since.seconds >= self.number
        return now.iteration - since.iteration >= self.number
