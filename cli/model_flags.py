"""What flags mean for model files: which files they name, and whether they contradict them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.run_files import SNAPSHOT, numbered_files
from models.model_file import find_best_model


def resolve_model_files(paths: Iterable[Path | str], kind: str, snapshots: bool) -> list[Path]:
    """List the model files that the paths of --model name, in their order.

    The folder of a run stands for its best model, or with `snapshots` for all its snapshots.
    kind: of network, pixelcnn or wavenet. Raises UserError for a folder that holds no model.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
        elif snapshots:
            files += numbered_files(path, SNAPSHOT) or [find_best_model(path, kind)]
        else:
            files.append(find_best_model(path, kind))
    return files


def check_flags(path: Path | str, values: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Refuse flags that contradict the model file `path`.

    values: what the file says, by flag name. flags: those of the script, None where not given.
    Raises UserError.
    """
    for name, value in values.items():
        typed = flags.get(name)
        if typed is not None and typed != value:
            raise UserError(f"--{name} {typed} contradicts {path}, which has {name} "
                            f"{value}; leave the flag out")
