"""Draw grids of images from a PixelCNN, in batches that fit into memory, and write them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from datasets.quantization import dequantize_pixels
from models import distributions
from models.pixelcnn import PixelCNN, PixelCNNConfig
from sampling.output.image_grid import save_picture
from sampling.pixelcnn import sample_images
from sampling.random_streams import RandomStreams
from sampling.rendering import SamplingOptions

# Limits of a batch, which bound the memory: images, pixels, and floats that the sampler keeps.
BATCH_IMAGES, BATCH_PIXELS, BATCH_FLOATS = 256, 2 ** 18, 2 ** 28


@dataclass(frozen=True, eq=False)
class Condition:
    """A label or vector to draw for. value: the label (), int64, or the vector (width,), float32"""

    name: str
    value: torch.Tensor


@dataclass(frozen=True, eq=False)
class Image:
    """An image to draw.

    stream: number of its random stream. condition: value of a Condition, None for a network
    without. given: codes (C, n, W) of its first n rows, None to draw all rows.
    """

    stream: int
    condition: torch.Tensor | None = None
    given: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class ImageKind:
    """What some images of a grid have in common.

    condition: what to draw for, None for a network without. original: codes (C, H, W) of the image
    whose lower half is drawn, None to draw whole images.
    """

    condition: Condition | None = None
    original: torch.Tensor | None = None


@dataclass(frozen=True)
class ImageGrid:
    """A picture of rows × columns images of height × width pixels.

    path: of its file, whose ending is the format. title: what it shows, empty for nothing special.
    kinds: of images; each kind takes an equal share of the grid, row by row.
    """

    path: Path
    title: str
    rows: int
    columns: int
    height: int
    width: int
    kinds: tuple[ImageKind, ...]

    @property
    def count(self) -> int:
        """The number of images drawn; originals shown beside them don't count."""
        return self.rows * self.columns


def given_rows(height: int) -> int:
    """How many pixel rows of an original of that height are kept when it is completed."""
    return height // 2


def render_grid(model: PixelCNN, grid: ImageGrid, options: SamplingOptions) -> float:
    """Draw the images of `grid` and write its picture. An original precedes its completions.

    Returns the seconds that drawing took, once the sampler was ready.
    """
    upper = given_rows(grid.height) if grid.kinds[0].original is not None else 0
    images = [Image(stream, None if kind.condition is None else kind.condition.value,
                    None if kind.original is None else kind.original[:, :upper])
              for kind in grid.kinds for stream in range(grid.count // len(grid.kinds))]
    # Draw one pixel first: it loads the sampler, and compiles it on its first use on a machine.
    draw_images(model, [Image(0, images[0].condition)], 1, 1, SamplingOptions(options.seed))
    began = time.perf_counter()
    batches = image_batches(model.config, images, grid.height, grid.width)
    with tqdm(total=len(batches) * (grid.height - upper), desc=grid.title or None, unit="row",
              disable=None) as bar:
        codes = draw_images(model, images, grid.height, grid.width, options, bar.update)
    seconds = time.perf_counter() - began
    codes = codes.unflatten(0, (grid.rows, grid.columns))
    originals = [kind.original for kind in grid.kinds if kind.original is not None]
    if originals:
        codes = torch.cat((torch.stack(originals)[:, None], codes), dim=1)
    pixels = dequantize_pixels(codes.permute(0, 1, 3, 4, 2).numpy(), model.config.levels)
    save_picture(grid.path, pixels, upper, original_columns=1 if originals else 0)
    return seconds


def draw_images(model: PixelCNN, images: Sequence[Image], height: int, width: int,
                options: SamplingOptions, on_row: Callable[[], object] | None = None
                ) -> torch.Tensor:
    """Draw `images` in batches that fit into memory. All or none of them have given rows.

    on_row: called after each pixel row of a batch. Returns codes (images, C, height, width),
    int64, on the CPU.
    """
    device = model.logits.weight.device
    codes = []
    for batch in image_batches(model.config, images, height, width):
        condition = _stack([image.condition for image in batch])
        codes.append(sample_images(
            model, RandomStreams(options.seed, [image.stream for image in batch]),
            None if condition is None else condition.to(device), height, width,
            options.temperature, options.top_p, on_row=on_row,
            prefix=_stack([image.given for image in batch])))
    return torch.cat(codes)


def image_batches(config: PixelCNNConfig, images: Sequence[Image], height: int, width: int
                  ) -> list[Sequence[Image]]:
    """Split `images` of that size in pixels into batches that fit into memory."""
    row = 4 * config.blocks_num * config.hidden_dim * width  # floats that a sampler keeps of a row
    size = max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width), BATCH_FLOATS // row))
    return [images[i:i + size] for i in range(0, len(images), size)]


def _stack(tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(there) if there else None


@torch.inference_mode()
def classify(model: PixelCNN, codes: torch.Tensor) -> list[int]:
    """Find the most likely label of each image from its first rows, all labels equally likely.

    model: with labels. codes: (N, C, rows, W). Returns N labels; label 0 where there are no rows.
    """
    if not codes.shape[2]:
        return [0] * len(codes)
    codes = codes.to(model.logits.weight.device)
    nlls = []
    for label in range(model.config.labels):
        parameters = model(codes, codes.new_full((len(codes),), label))
        nlls.append(distributions.nll(model.distribution, parameters, codes).flatten(1).sum(1))
    return torch.stack(nlls).argmin(dim=0).tolist()
