"""Which labels --label asks for, and what they are called in the names of files."""

import re

from datasets.labels import find_label


def labels_asked(names, wanted):
    """The numbers of the labels that `wanted` means: a number, a name, `all`, or None.

    names: of the model's labels. None is label 0, or no label at all, [None], of a model without.
    Raises UserError for a label that the model doesn't have.
    """
    if wanted is None:
        return [0] if names else [None]
    if wanted == "all" and names:
        return list(range(len(names)))
    return [find_label(names, wanted)]


def names_for_files(label_names):
    """Label names as parts of file names: what may not be in one is _, and no two are the same."""
    names = [re.sub(r"[^\w.-]+", "_", name)[:80] for name in label_names]
    if len({name.casefold() for name in names}) < len(names):
        return [f"{number}_{name}" for number, name in enumerate(names)]
    return names
