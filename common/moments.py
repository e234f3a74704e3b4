"""Points in a run, and intervals between them, counted in updates (or samples) or in seconds."""

from dataclasses import dataclass
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in a run: after which update, and after how many seconds of training."""

    iteration: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Every:
    """An interval: so many updates (or samples), or so many seconds."""

    number: float
    in_seconds: bool = False

    def __str__(self) -> str:
        return f"{self.number}{'s' if self.in_seconds else ''}"

    def has_passed(self, now: tuple[float, float], since: tuple[float, float]) -> bool:
        """Whether the interval has passed between two points: each a count, and seconds."""
        count, seconds = now[0] - since[0], now[1] - since[1]
        return (seconds if self.in_seconds else count) >= self.number
