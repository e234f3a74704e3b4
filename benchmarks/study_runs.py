"""The runs of the study: the file in configs/ that each trains, and the published results."""

import json
from pathlib import Path
from typing import NamedTuple

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
LOCATIONS = ("data", "output", "out")  # flags that the study sets itself


class Run(NamedTuple):
    """A row of the table: a file in configs/ and the published results.

    name: of the file and of the run's folder. source: for sound, the flag of study.py with the
    folder of the recordings; None for images. unit: "nats" or "bits/dim". published: results of the
    papers. published_items: the number of training items of the published set, with validation.
    """

    name: str
    source: str | None = None
    unit: str = "bits/dim"
    published: str = ""
    published_items: int = 60_000

    @property
    def kind(self) -> str:
        """The network: "pixelcnn" or "wavenet"."""
        return "wavenet" if self.source else "pixelcnn"

    @property
    def config(self) -> Path:
        """The JSON file with the flags of its scripts."""
        return CONFIGS / f"{self.name}.json"

    def flags(self) -> dict:
        """Flags that the result depends on besides the seed, by script name."""
        settings = json.loads(self.config.read_text(encoding="utf-8"))
        parts = settings if self.source else {"train_pixelcnn": settings}
        return {script: {flag: value for flag, value in part.items() if flag not in LOCATIONS}
                for script, part in parts.items()}

    @property
    def result(self) -> str:
        """The log's key of the likelihood; the training likelihood if nothing is held back."""
        if self.kind == "pixelcnn":
            return f"test/main/{self.unit}"
        held_back = "validation" in self.flags()["preprocess"]
        return f"validation/main/{self.unit}" if held_back else f"main/{self.unit}"


RUNS = (
    Run("digits_binarised", unit="nats",
        published="PixelCNN 81.30, Row LSTM 80.54, Diagonal BiLSTM 79.20 nats"),
    Run("digits_4_levels", unit="nats"),
    Run("digits_4_levels_5_blocks", unit="nats"),
    Run("digits_8_levels"),
    Run("digits_256_levels_short"),
    Run("digits_256_levels", published="a tutorial's PixelCNN, without classes, 0.808 bits/dim"),
    Run("fashion"),
    Run("cifar", published="PixelCNN 3.14, Gated PixelCNN 3.03, PixelCNN++ 2.92 bits/dim",
        published_items=50_000),
    Run("tone", source="tone", published_items=1),
    Run("p225", source="vctk", published_items=231),
    Run("spoken_digits", source="speech", published_items=3_000),
    Run("spoken_digits_from_features", source="speech", published_items=3_000),
    Run("voice", source="prompts", published_items=541),
)
