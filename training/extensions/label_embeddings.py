"""How similar the embeddings of the labels are: a plot, and files for TensorBoard's projector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.files import atomic_write, make_folder
from common.fonts import legible
from common.plots import save_figure
from models.model_file import LABEL_EMBEDDING_SUFFIX
from training.extensions.extension import Extension
from training.extensions.tensorboard import Board

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.trainer import Trainer

MAX_NAMED_POINTS = 60  # with more labels, points have no names
MAX_NAME_LENGTH = 60  # characters; the picture is as wide as its names need
PROJECTOR = """embeddings {
  tensor_name: "labels"
  tensor_path: "labels/tensors.tsv"
  metadata_path: "labels/metadata.tsv"
}
"""


class LabelEmbeddings(Extension):
    """Draws `embeddings.png` in `out`, and hands the embeddings to TensorBoard's projector.

    The projector reads files beside the events of the `board`; they hold the latest embeddings.
    """

    def __init__(self, out: str | Path, board: Board, label_names: Sequence[str]) -> None:
        self.out, self.board = Path(out), board
        # In the projector's file a tab would start a column and a line break another label; an
        # empty line would be skipped.
        self.names = [" ".join(name.split()) or "_" for name in label_names]

    def __call__(self, trainer: Trainer) -> None:
        """Write the plot and the projector's files."""
        embeddings = embeddings_of(trainer.eval_model)
        # Tight, so that names that reach beyond the axes are shown whole.
        save_figure(self.out / "embeddings.png", figure_of(embeddings, self.names), tight=True)
        folder = self.board.folder
        make_folder(folder / "labels", "--out")
        with atomic_write(folder / "labels/tensors.tsv") as temporary:
            np.savetxt(temporary, embeddings, fmt="%.7g", delimiter="\t")
        with atomic_write(folder / "labels/metadata.tsv") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")
        with atomic_write(folder / "projector_config.pbtxt") as temporary:
            temporary.write_text(PROJECTOR)


def embeddings_of(model: torch.nn.Module) -> np.ndarray:
    """Return what each label adds to the gates, all layers side by side: (labels, channels)."""
    of_layers = [weight for name, weight in model.state_dict().items()
                 if name.endswith(LABEL_EMBEDDING_SUFFIX)]
    return torch.cat(of_layers, dim=1).float().cpu().numpy()


def figure_of(embeddings: np.ndarray, names: Sequence[str]) -> Figure:
    """Plot the plane of the first two principal components, a named point for each label."""
    # Imported here, because it takes long; the object-oriented form needs no display.
    from matplotlib.figure import Figure
    points, explained = principal_plane(embeddings)
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(points[:, 0], points[:, 1], s=18)
    if len(names) <= MAX_NAMED_POINTS:
        for name, point in zip(names, points, strict=True):
            axes.annotate(legible(name[:MAX_NAME_LENGTH]), point, xytext=(4, 3),
                          textcoords="offset points",
                          fontsize="small" if len(names) < 20 else "x-small", parse_math=False)
    axes.set(title=f"embeddings of {len(names)} labels; {explained:.0%} of their variance is in "
                   f"this plane", xlabel="first principal component", ylabel="second")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    return figure


def principal_plane(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """Project the rows on the plane in which they vary most.

    embeddings: (labels, channels), 2 labels or more. Returns the coordinates, (labels, 2), and the
    plane's share of the variance, from 0 to 1.
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * spread[:2]
    # The sign of an axis is arbitrary: fix it, so that the plot does not flip between epochs.
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1, 1)
    variance = (spread ** 2).sum()
    return points, (spread[:2] ** 2).sum() / variance if variance else 1.0
