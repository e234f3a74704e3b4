"""Format the numbers that benchmarks print."""

from collections.abc import Sequence
from statistics import mean, stdev


def format_mean(values: Sequence[float], form: str) -> str:
    """The mean; for several values "mean ± standard deviation". form: a format specification."""
    spread = f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def format_count(count: int, noun: str) -> str:
    """As in "1 thread" and "2,000 threads"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """As in "18 s", "59 min" and "2.3 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
