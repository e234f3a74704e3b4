"""What infer_pixelcnn.py draws: sheets of images, for each model and label, or completions."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from cli.conditions import Conditions, conditions_asked
from cli.labels import distinct, likeliest_labels, names_of_models
from common.errors import UserError
from datasets.quantization import dequantize_pixels
from models.model_file import check_flags, load
from sampling.output.image_grid import check_picture, read_codes, save_picture
from sampling.output.page import facts_of
from sampling.pixelcnn import sample_images
from sampling.random_streams import RandomStreams

# Drawn at once, and kept of their rows: these bound the memory.
BATCH_IMAGES, BATCH_PIXELS, BATCH_FLOATS = 256, 2 ** 18, 2 ** 28


class Sheet(NamedTuple):
    """A grid of images, --count of them in a row.

    path: of its file. name: what is on it, in words. rows: how many. kinds: of images, each an
    equal share of them: [(number among the plan's conditions or None, number of the original
    completed or None), …].
    """

    path: Path
    name: str
    rows: int
    kinds: list


class Plan(NamedTuple):
    """What is drawn from one model.

    file: of the model. name: short, of its own. size: of an image, (C, H, W). originals: codes
    (N, C, H, W) of those to be completed. conditions: of `conditions_asked`. sheets: a list of
    Sheet. facts: of `page.facts_of`.
    """

    file: Path
    name: str
    size: tuple
    originals: torch.Tensor
    conditions: Conditions
    sheets: list
    facts: dict

    @property
    def given_rows(self):
        """The rows of pixels that are given of each original."""
        return self.size[1] // 2 if len(self.originals) else 0


def is_folder(output):
    """Whether --output means a folder: one that is there, or a name that ends as one."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def plans(files, args):
    """A Plan for each of the model `files`, all of which is checked before anything is drawn.

    args: of infer_pixelcnn.py. Raises UserError for what can't be drawn.
    """
    folder = Path(args.output) if is_folder(args.output) else None
    if len(files) > 1 and not folder:
        raise UserError(f"--output {args.output}: is one picture, and --model names {len(files)} "
                        "models; name a folder for a picture of each, such as samples/")
    found = []
    for file, name in zip(files, names_of_models(files), strict=True):
        model, label_names, data, content = load(file, "pixelcnn")
        check_flags(file, content["config"], vars(args))
        size = (model.config.channels, args.height or data["height"], args.width or data["width"])
        originals = torch.from_numpy(read_codes(args.complete or [], *size, model.config.levels))
        own = folder / name if folder and len(files) > 1 else folder
        conditions = conditions_asked(file, model, label_names, args, len(files) > 1)
        sheets = sheets_asked(model, conditions, originals, own, args)
        for sheet in sheets:
            check_picture(sheet.path, (sheet.rows, args.count + bool(args.complete), *size[1:],
                                       size[0]))
        found.append(Plan(file, name, size, originals, conditions, sheets,
                          facts_of(file, content, model)))
    return found


def sheets_asked(model, conditions, originals, folder, args):
    """The sheets of one model: one, or in a `folder` one for each label or vector asked for.

    originals: codes (N, C, H, W) to complete. args: of infer_pixelcnn.py.
    """
    names, _, asked = conditions
    if args.complete:
        numbers = range(len(originals))
        kinds = [(label, number) for number in numbers for label in asked]
        if names and args.label is None and args.condition_from is None:
            own = numbers if model.config.vector else likeliest_labels(
                model, originals[:, :, :originals.shape[2] // 2])
            kinds = list(zip(own, numbers, strict=True))
        path = folder / "completed.png" if folder else Path(args.output)
        return [Sheet(path, "completed", len(kinds), kinds)]
    kinds = [(label, None) for label in asked]
    if not folder:
        a_row_each = args.label == "all" or len(kinds) > 1
        return [Sheet(Path(args.output), "", len(kinds) if a_row_each else args.count, kinds)]
    stems = distinct(names) if names else {None: "samples"}
    return [Sheet(folder / f"{stems[label]}.png",
                  "samples" if label is None else names[label], args.count, [(label, None)])
            for label, _ in kinds]


def perform(model, plan, sheet, args):
    """Draw a sheet of a plan and write its picture; the seconds that drawing took.

    args: of infer_pixelcnn.py.
    """
    each = sheet.rows * args.count // len(sheet.kinds)
    images = [(*kind, number) for kind in sheet.kinds for number in range(each)]
    codes, seconds = draw(model, images, plan, args, sheet.name)
    codes = codes.unflatten(0, (sheet.rows, args.count))
    if len(plan.originals):
        shown = plan.originals[[original for _, original in sheet.kinds]]
        codes = torch.cat((shown[:, None], codes), dim=1)
    pixels = dequantize_pixels(codes.permute(0, 1, 3, 4, 2).numpy(), model.config.levels)
    save_picture(sheet.path, pixels, plan.given_rows, int(len(plan.originals) > 0))
    return seconds


def draw(model, images, plan, args, name):
    """Draw `images` of a plan in batches that the memory can hold.

    images: [(number of the condition, number of the original, stream), …]. args: seed, temperature,
    top_p. name: for the bar.
    Returns codes (images, C, H, W), and how many seconds it took once the sampler was ready.
    """
    _, height, width = plan.size
    upper = plan.originals[:, :, :plan.given_rows]
    row = 4 * model.config.blocks_num * model.config.hidden_dim * width  # floats of an image's row
    at_once = max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width), BATCH_FLOATS // row))
    batches = [images[i:i + at_once] for i in range(0, len(images), at_once)]
    device, drawn = model.logits.weight.device, []

    def labels_of(numbers):
        return None if numbers[0] is None else plan.conditions.labels[numbers].to(device)

    # One pixel, so that the sampler is loaded, or the first time on a machine compiled.
    sample_images(model, RandomStreams(args.seed, [0]), labels_of([images[0][0]]), 1, 1)
    began = time.perf_counter()
    with tqdm(total=len(batches) * (height - upper.shape[2]), desc=name or None, unit="row",
              disable=None) as bar:
        for batch in batches:
            number, original, stream = map(list, zip(*batch, strict=True))
            drawn.append(sample_images(
                model, RandomStreams(args.seed, stream), labels_of(number), height, width,
                args.temperature, args.top_p, prefix=upper[original] if len(upper) else None,
                on_row=bar.update))
    return torch.cat(drawn), time.perf_counter() - began
