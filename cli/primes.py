"""What sounds are made from, beside a label: a recording to go on from, or features to speak."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.text import decode_filename
from datasets.audio.features import Features, compute_features
from datasets.endings import AUDIO, describe_skipped, find_by_ending
from sampling.output import sound


class Given(NamedTuple):
    """One of these. name: of its file, short; empty for silence, which is neither.

    codes: (P,), of a recording that sounds go on from. frames: (K, width), the features of what
    they are to say; None without.
    """

    name: str = ""
    codes: np.ndarray = np.empty(0, np.uint8)
    frames: np.ndarray | None = None


def given_asked(args, file, config, data):
    """What --prime or --features_from asks for, a list of Given.

    args: of infer_wavenet.py. file: of the model. config: the network's. data: what the file says
    of the data. Raises UserError for what is no recording, no features, or not for this model.
    """
    if args.features_from and not config.features:
        raise UserError(f"--features_from: {file} was trained without features; leave it out, or "
                        "name another model")
    if config.features and not args.features_from:
        raise UserError(f"{file}: was trained on features; give --features_from a recording, a "
                        ".npy, or a folder of them")
    if args.features_from:
        features = Features(**data["features"])
        return [Given(name, frames=compute_features(path, features))
                for name, path in _files("--features_from", args.features_from)]
    if not args.prime:
        return [Given()]
    seconds = args.prime_seconds or 0
    if 0 < seconds * data["rate"] < 1:
        raise UserError(f"--prime_seconds {seconds:g}: is less than a sample at {data['rate']} Hz; "
                        "give a longer time")
    return [Given(name, sound.read_codes(path, data["rate"], config.levels, seconds))
            for name, path in _files("--prime", args.prime)]


def _files(flag, path):
    """The files that a flag's `path` means: [(name, path), …] of itself, or of those below it."""
    path = Path(path)
    if not os.path.isdir(path):  # Path.is_dir raises where one may not look
        return [(decode_filename(path.stem), path)]
    endings = AUDIO
    if flag == "--features_from":
        endings = AUDIO._replace(read=(*AUDIO.read, ".npy"))
    found, skipped = find_by_ending(path, endings)
    if not found:
        what = "recordings" if flag == "--prime" else "recordings and no .npy"
        raise UserError(f"{flag} {path}: no {what} below it; name a file, or a folder of them")
    if skipped:
        print(f"{flag} {path}: {describe_skipped(skipped)}", file=sys.stderr)
    names = [decode_filename(one.relative_to(path).with_suffix("").as_posix()) for one in found]
    if len(set(names)) < len(names):  # which only their endings tell apart
        names = [decode_filename(one.relative_to(path).as_posix()) for one in found]
    return tqdm(list(zip(names, found, strict=True)), desc=flag[2:], unit="file", leave=False,
                disable=None)
