"""What drawing images and drawing sounds share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingOptions:
    """How to draw from a distribution of codes.

    seed: of the random streams, 0 or more. temperature: 0 or more, and top_p, in (0, 1]: see the
    `sample` of the model's distribution in `models.distributions`; below 1 they make the draw less
    random. precision: fp32 or bf16, of the weights; for sound only.
    """

    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    precision: str = "fp32"
