"""What drawing images and drawing sounds share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingOptions:
    """How to draw from a distribution of codes.

    seed: of the random streams, 0 or more. temperature: 0 or more, divides the logits; at 0 the
    most probable code is taken. top_p: in (0, 1], draw among the most probable codes that together
    have this probability. precision: fp32 or bf16, of the weights; for sound only.
    """

    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    precision: str = "fp32"
