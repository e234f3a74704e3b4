"""Begin from another run's weights: the same network, its labels matched by their names."""

from typing import Any

from common.errors import UserError
from models import model_file
from training.extensions.label_embeddings import EMBEDDING


def init_from(path, kind, model, label_names, started):
    """Give `model` the weights of the model file, snapshot or run at `path`.

    label_names: of the new data. A label that the file has too takes its embeddings; one in
    `started`, a list of "NEW=OLD", takes those of OLD; any other begins as the mean of the file's.
    What a network that is conditioned on nothing adds for labels or vectors begins at 0. Returns
    what was done with the labels, in words.
    Raises UserError where the networks differ, or a name in `started` is not there.
    """
    try:
        found = model_file.load(path, kind)
    except UserError as error:
        raise UserError(f"--init_from: {error}") from None
    theirs, ours = vars(found.model.config), vars(model.config)
    for name, value in theirs.items():
        if name not in ("labels", "vector") and value != ours[name]:
            advice = (flag_hint(name, value)
                      or f"give --{name} {value}, and data of that kind")
            raise UserError(f"--init_from {path}: has {name} {value}, this network {ours[name]}; "
                            f"{advice}")
    if found.label_names and not label_names:
        raise UserError(f"--init_from {path}: has {len(found.label_names)} labels, the data none; "
                        "prepare the data with labels")
    vector = theirs.get("vector", 0)  # which only pictures have
    if vector and vector != ours["vector"]:
        raise UserError(f"--init_from {path}: is conditioned on vectors of {vector} numbers, this "
                        f"network on {ours['vector'] or 'none'}; give --condition npy, and vectors "
                        f"of {vector}")
    started = dict(pair.split("=", 1) for pair in started)
    for new, old in started.items():
        for name, names, of in ((new, label_names, "the data"), (old, found.label_names, path)):
            if name not in names:
                raise UserError(f"--start_label {new}={old}: {name!r} is no label of {of}; it has "
                                f"{', '.join(map(str, names[:20])) or 'none'}")
    sources = [started.get(name, name) for name in label_names]
    weights, own = found.model.state_dict(), model.state_dict()
    for name, weight in own.items():
        if not name.endswith(EMBEDDING) or vector:
            weight.copy_(weights.get(name, weight))  # not there: the scale of the first vectors
            continue
        weight.zero_()
        for number, source in enumerate(sources if found.label_names else ()):
            rows = weights[name]
            weight[number] = (rows[found.label_names.index(source)]
                              if source in found.label_names else rows.mean(0))
    known = [name for name in label_names if name in found.label_names and name not in started]
    fresh = [name for name, source in zip(label_names, sources, strict=True)
             if source not in found.label_names]
    parts = [f"{len(known)} labels as there" * bool(known),
             ", ".join(f"{new} from {old}" for new, old in started.items()),
             f"new: {', '.join(fresh)}" * bool(fresh)]
    return f"weights of {path}" + "".join(f"; {part}" for part in parts if part)


def flag_hint(name: str, value: Any) -> str | None:
    """Say which flag gives a network whose configuration has `name` as `value`.

    None where the flag has the same name.
    """
    if name != "position":
        return None
    return "leave out --no_position" if value else "give --no_position"
