"""Which labels --label names."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError

SHOWN = 20  # label names in an error message


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


def find_label(names: list[str], wanted: str) -> int:
    """Return the index in `names` of the label that --label gives, by its name or its number.

    Raises UserError if there is no such label.
    """
    if not names:
        raise UserError(f"--label {wanted}: the model was trained without labels; leave it out")
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names[:SHOWN]))
    more = f", … {len(names) - 1} {names[-1]}" if len(names) > SHOWN else ""
    raise UserError(f"--label {wanted}: no such label; give a number or a name of: {known}{more}")
