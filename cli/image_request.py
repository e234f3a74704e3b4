"""What infer_pixelcnn.py is to draw, resolved from its flags: grids of images for each model."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from cli.conditions import ConditionFlags, Conditions, resolve_conditions
from cli.model_flags import resolve_model_files
from cli.originals import read_originals
from cli.requests import RequestedModel, open_models, sampling_options
from common.errors import UserError
from common.file_names import distinct_file_names
from common.files import make_folder
from common.text import printable
from models.pixelcnn import PixelCNN
from sampling.image_rendering import ImageGrid, ImageKind, classify, given_rows
from sampling.output.image_grid import ENDINGS, LONGEST_SIDE, picture_size
from sampling.rendering import SamplingOptions


@dataclass(frozen=True)
class ImageRequest:
    """The grids to draw from one model, and how."""

    model: RequestedModel
    grids: tuple[ImageGrid, ...]
    options: SamplingOptions

    @property
    def count(self) -> int:
        """The number of images to draw."""
        return sum(grid.count for grid in self.grids)

    def summary(self) -> str:
        """Say where the images go, how many there are, and for which labels or vectors."""
        path = self.grids[0].path
        conditions = dict.fromkeys(kind.condition for grid in self.grids for kind in grid.kinds)
        names = ", ".join(printable(condition.name) for condition in conditions if condition)
        return (f"{path.parent if self.model.folder else path}: {self.count} images"
                + (f" of {names}" if names else ""))


def resolve_image_requests(args: argparse.Namespace) -> list[ImageRequest]:
    """Resolve the flags of infer_pixelcnn.py into a request for each model; check all of them.

    Makes the folders to write to. Raises UserError for what can't be drawn or written.
    """
    files = resolve_model_files(args.model, "pixelcnn", args.snapshots)
    folder = Path(args.output) if is_folder(args.output) else None
    if len(files) > 1 and not folder:
        raise UserError(f"--output {args.output}: is one picture, and --model names {len(files)} "
                        "models; name a folder for a picture of each, such as samples/")
    flags = ConditionFlags(args.label, args.condition_from, args.complete or ())
    requests = []
    for requested, loaded in open_models(files, "pixelcnn", folder, args):
        config = loaded.model.config
        height, width = args.height or loaded.data["height"], args.width or loaded.data["width"]
        originals = torch.from_numpy(read_originals(flags.complete, config.channels, height, width,
                                                    config.levels))
        conditions = resolve_conditions(requested.file, config.vector, loaded.label_names, flags,
                                        len(files) > 1)
        layout = GridLayout(args.output, requested.folder, args.count, height, width)
        if flags.complete:
            kinds = completion_kinds(loaded.model, originals, conditions, flags)
            grids = [completion_grid(layout, kinds)]
        else:
            grids = label_grids(layout, conditions, flags.label == "all")
        for grid in grids:
            check_picture(grid.path, (grid.rows, grid.columns + bool(flags.complete), height, width,
                                      config.channels))
        requests.append(ImageRequest(requested, tuple(grids), sampling_options(args)))
    return requests


def is_folder(output: str) -> bool:
    """Whether --output means a folder: an existing one, or a name that ends like one."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def check_picture(path: Path, shape: tuple[int, int, int, int, int]) -> None:
    """Check that the picture `path` can be written, and make its folder.

    shape: of the grid, (rows, columns, H, W, C).
    Raises UserError for an ending other than .jpg, .jpeg, .png and .gif, a folder that can't be
    written to, or a grid that is too large.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--output {path}: the name must end in {', '.join(ENDINGS[:-1])} or .gif, "
                        "or in / for a folder")
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder, where the picture is to be; name another")
    if max(picture_size(shape)) > LONGEST_SIDE:
        rows, columns, height, width, _ = shape
        raise UserError(f"--output {path}: {rows} x {columns} images of {height} x {width} "
                        f"are too many for one picture; give a smaller --count")
    make_folder(path.parent, "--output")


@dataclass(frozen=True)
class GridLayout:
    """Where grids go, and how large they are.

    output: the picture that --output names, used without a `folder`. count: images in a row.
    """

    output: str
    folder: Path | None
    count: int
    height: int
    width: int

    def grid(self, path: Path, title: str, rows: int, kinds: list[ImageKind]) -> ImageGrid:
        """Make a grid of so many rows."""
        return ImageGrid(path, title, rows, self.count, self.height, self.width, tuple(kinds))


def label_grids(layout: GridLayout, conditions: Conditions, all_labels: bool
                ) -> list[ImageGrid]:
    """Make one grid, or in a folder one for each condition asked for.

    A picture has a row for each condition if `all_labels` or several vectors are asked for.
    """
    kinds = [ImageKind(condition) for condition in conditions.asked]
    if not layout.folder:
        rows = len(kinds) if all_labels or len(kinds) > 1 else layout.count
        return [layout.grid(Path(layout.output), "", rows, kinds)]
    known = conditions.known
    stems = dict(zip(known, distinct_file_names([one.name for one in known]), strict=True))
    grids = []
    for kind in kinds:
        stem, title = ((stems[kind.condition], kind.condition.name) if kind.condition
                       else ("samples", "samples"))
        grids.append(layout.grid(layout.folder / f"{stem}.png", title, layout.count, [kind]))
    return grids


def completion_grid(layout: GridLayout, kinds: list[ImageKind]) -> ImageGrid:
    """Make a grid with a row for each kind, an original and its condition."""
    path = layout.folder / "completed.png" if layout.folder else Path(layout.output)
    return layout.grid(path, "completed", len(kinds), kinds)


def completion_kinds(model: PixelCNN, originals: torch.Tensor, conditions: Conditions,
                     flags: ConditionFlags) -> list[ImageKind]:
    """Pair each original, codes (C, H, W), with the conditions to complete it for.

    By default that is the vector beside it, or the label that its upper half fits best.
    """
    if not (conditions.known and flags.none_asked_for):
        return [ImageKind(condition, original) for original in originals
                for condition in conditions.asked]
    own = conditions.known
    if not conditions.of_vectors:
        upper = originals[:, :, :given_rows(originals.shape[2])]
        own = [conditions.known[label] for label in classify(model, upper)]
    return [ImageKind(condition, original)
            for condition, original in zip(own, originals, strict=True)]
