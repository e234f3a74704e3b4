"""The files in the folder of a training run."""

import re
from pathlib import Path

CONFIG, LOG, TENSORBOARD, SAMPLES = "config.json", "log", "tensorboard", "samples"
SPEECH = "speech"  # the network that turns text into frames, and the state of its training
SNAPSHOT = "snapshot_iter"  # files snapshot_iter_N, N counts updates
# The plots and their titles, in the order in which a page shows them.
PLOTS = {"loss.png": "Likelihood", "labels.png": "Validation of each label",
         "speed.png": "Speed", "data.png": "The data", "embeddings.png": "Label embeddings"}
# Each run writes these under the same names. Snapshots, models and samples carry a number.
UNNUMBERED = (CONFIG, LOG, *PLOTS, TENSORBOARD)


def numbered_files(folder: Path | str, name: str) -> list[Path]:
    """List the files NAME_N in `folder`, by rising N."""
    found = [(int(match[1]), path) for path in Path(folder).glob(f"{name}_*")
             if (match := re.fullmatch(rf"{re.escape(name)}_(\d+)", path.name))]
    return [path for _, path in sorted(found)]
