"""Which labels --label names."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from datasets.audio.labels import find_label


def resolve_labels(names: Sequence[str], wanted: str | None, file: Path,
                   among_others: bool = False) -> list[int | None]:
    """List the labels that `wanted` means: a number, a name, `all`, or None.

    names: of the labels of the model `file`. None means label 0; a model without labels gives
    [None], also for `all` if it is `among_others`. Raises UserError for a label that the model does
    not have.
    """
    if wanted is None or (wanted == "all" and not names and among_others):
        return [0] if names else [None]
    if wanted == "all" and names:
        return list(range(len(names)))
    try:
        return [find_label(list(names), wanted)]
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
