"""Which labels to draw with, and what labels and models are called in the names of files."""

import re

import torch
import torch.nn.functional as F

from common.errors import UserError
from common.files import real_path
from datasets.audio.labels import find_label

LONGEST = 80, 100  # characters and bytes of a part of a file's name, of which three and more fit


def labels_asked(names, wanted, file, among_others=False):
    """The numbers of the labels that `wanted` means: a number, a name, `all`, or None.

    names: of the labels of the model in `file`. None is label 0, or no label at all, [None], of a
    model without; so is `all` of such a model `among_others`. Raises UserError for a label that the
    model doesn't have.
    """
    if wanted is None or wanted == "all" and not names and among_others:
        return [0] if names else [None]
    if wanted == "all" and names:
        return list(range(len(names)))
    try:
        return [find_label(names, wanted)]
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


@torch.inference_mode()
def likeliest_labels(model, given):
    """For each of the images that begin with the rows `given`, the label that they best fit.

    model: a PixelCNN with labels. given: codes (N, C, rows, W). Returns N numbers: by Bayes' rule,
    all labels being as likely beforehand; the first of them where no row is given.
    """
    if not given.shape[2]:
        return [0] * len(given)
    codes = given.to(model.logits.weight.device)
    nlls = [F.cross_entropy(model(codes, codes.new_full((len(codes),), label)), codes,
                            reduction="none").flatten(1).sum(dim=1)
            for label in range(model.config.labels)]
    return torch.stack(nlls).argmin(dim=0).tolist()


def distinct(names):
    """The names as parts of file names: what may not be in one is _, and no two are the same.

    None is empty or a folder's own, such as .., or longer than a file's name may be with others.
    """
    names = [_cut(re.sub(r"[^\w.-]+", "_", name)) for name in names]
    names = [name if name.strip(".") else "_" for name in names]
    if len({name.casefold() for name in names}) < len(names):
        return [f"{number}_{name}" for number, name in enumerate(names)]
    return names


def _cut(name):
    """As much of a name as LONGEST allows."""
    return name[:LONGEST[0]].encode()[:LONGEST[1]].decode(errors="ignore")


def names_of_models(files):
    """Names for model files, as `distinct` makes them: of files in several folders with these."""
    folders = {real_path(file).parent for file in files}
    return distinct([file.name if len(folders) == 1 else
                     f"{real_path(file).parent.name}_{file.name}" for file in files])
