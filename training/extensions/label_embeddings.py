"""What a network has learned of its labels: how near to one another their embeddings are."""

from pathlib import Path

import numpy as np
import torch

from common.files import atomic_write, make_folder
from common.fonts import legible

EMBEDDING = "condition.weight"  # how the names of label embeddings end; a row for each label
MOST_NAMED = 60  # points that are named in a picture
LONGEST = 60  # characters of a name in a picture, which is as wide as they need
PROJECTOR = """embeddings {
  tensor_name: "labels"
  tensor_path: "labels/tensors.tsv"
  metadata_path: "labels/metadata.tsv"
}
"""


class LabelEmbeddings:
    """Draws `embeddings.png` in `out`, and gives the embeddings to TensorBoard's projector.

    That reads files beside the events on the `board`, which always hold the latest embeddings.
    """

    def __init__(self, out, board, label_names):
        self.out, self.board = Path(out), board
        # A tab would begin a column in the projector's file, and a new line another label; a line
        # with nothing in it is none.
        self.names = [" ".join(name.split()) or "_" for name in label_names]

    def __call__(self, trainer):
        embeddings = embeddings_of(trainer.eval_model)
        with atomic_write(self.out / "embeddings.png") as temporary:
            # Tight: with all of a name that goes beyond the axes.
            figure_of(embeddings, self.names).savefig(temporary, dpi=110, bbox_inches="tight")
        folder = self.board.folder
        make_folder(folder / "labels", "--out")
        with atomic_write(folder / "labels/tensors.tsv") as temporary:
            np.savetxt(temporary, embeddings, fmt="%.7g", delimiter="\t")
        with atomic_write(folder / "labels/metadata.tsv") as temporary:
            temporary.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")
        with atomic_write(folder / "projector_config.pbtxt") as temporary:
            temporary.write_text(PROJECTOR)


def embeddings_of(model):
    """What each label adds to the gates, those of all layers side by side: (labels, channels)."""
    found = [weight for name, weight in model.state_dict().items() if name.endswith(EMBEDDING)]
    return torch.cat(found, dim=1).float().cpu().numpy()


def figure_of(embeddings, names):
    """The plane of the first two principal components, a named point for each label: a Figure."""
    # Here, since it takes long to import; the object-oriented form needs no display.
    from matplotlib.figure import Figure
    points, share = principal_plane(embeddings)
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*points.T, s=18)
    if len(names) <= MOST_NAMED:
        for name, point in zip(names, points, strict=True):
            axes.annotate(legible(name[:LONGEST]), point, xytext=(4, 3), textcoords="offset points",
                          fontsize="small" if len(names) < 20 else "x-small", parse_math=False)
    axes.set(title=f"embeddings of {len(names)} labels; {share:.0%} of their variance is in this "
                   f"plane", xlabel="first principal component", ylabel="second")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    axes.grid(alpha=0.3)
    return figure


def principal_plane(embeddings):
    """Coordinates in the plane in which the rows vary most, and its share of their variance.

    embeddings: (labels, channels), 2 labels or more. Returns ((labels, 2), a number in [0, 1]).
    """
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * spread[:2]
    # Either direction of an axis would do: always the same, lest the picture flip from time to
    # time.
    points *= np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1, 1)
    variance = (spread ** 2).sum()
    return points, (spread[:2] ** 2).sum() / variance if variance else 1.0
