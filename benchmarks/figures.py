"""How benchmarks write figures."""

from statistics import mean, stdev


def told(values, form):
    """The mean of the values, and of several also their standard deviation."""
    spread = f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def number(count, noun):
    """1 thread, 2,000 threads."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds):
    """18 s, 59 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
