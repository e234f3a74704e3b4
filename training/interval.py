"""What the log reports about a stretch of updates."""

from dataclasses import dataclass


@dataclass
class Interval:
    """Sums over the updates since the last entry of the log: `nll` in nats, and `seconds`."""

    nll: float = 0.0
    targets: int = 0
    samples: int = 0
    seconds: float = 0.0
