"""What sounds start from, beside a label: recordings to continue, or features or texts to speak."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.text import decode_filename
from datasets.audio.features import Features, compute_features
from datasets.audio.recordings import Excerpt, read_recording
from datasets.endings import AUDIO, describe_skipped, find_by_ending
from datasets.quantization import encode_sound
from models.wavenet import WaveNetConfig
from sampling.sound_rendering import NO_PRIME


@dataclass(frozen=True)
class SoundFlags:
    """--prime, --prime_seconds and --features_from, as they were given, and what --text says."""

    prime: str | None
    prime_seconds: float | None
    features_from: str | None
    text: str | None = None


@dataclass(frozen=True, eq=False)
class SoundSource:
    """What a sound starts from.

    name: short, of its file; empty for silence. prime: codes (P,) of a recording to continue.
    frames: (K, width), features of a recording to speak; None without. text: to speak, or None.
    """

    name: str = ""
    prime: np.ndarray = field(default_factory=lambda: NO_PRIME)
    frames: np.ndarray | None = None
    text: str | None = None


def resolve_sources(flags: SoundFlags, file: Path, config: WaveNetConfig, data: dict[str, Any],
                    speaks_texts: bool) -> list[SoundSource]:
    """Read what the flags name; silence if they name nothing.

    file: of the model. config: of its network. data: what it was trained on. speaks_texts: whether
    the file holds a network for texts.
    Raises UserError for files that are no recordings or features, or do not fit the model.
    """
    if flags.text is not None:
        if not speaks_texts:
            raise UserError(f"--text: {file} was trained without texts; prepare recordings with "
                            "preprocess.py --features text, or name another model")
        return [SoundSource(text=flags.text)]
    if flags.features_from and not config.features:
        raise UserError(f"--features_from: {file} was trained without features; leave it out, or "
                        "name another model")
    if config.features and not flags.features_from:
        text = "--text words, or " if speaks_texts else ""
        raise UserError(f"{file}: was trained on features; give {text}--features_from a recording, "
                        "a .npy, or a folder of them")
    if flags.features_from:
        features = Features(**data["features"])
        return [SoundSource(name, frames=compute_features(path, features))
                for name, path in _named_files("--features_from", flags.features_from)]
    if not flags.prime:
        return [SoundSource()]
    seconds = flags.prime_seconds or 0
    if 0 < seconds * data["rate"] < 1:
        raise UserError(f"--prime_seconds {seconds:g}: is less than a sample at {data['rate']} Hz; "
                        "give a longer time")
    return [SoundSource(name, read_prime(path, data["rate"], config.levels, seconds,
                                         data["encoding"]))
            for name, path in _named_files("--prime", flags.prime)]


def read_prime(path: Path, rate: int, levels: int, seconds: float = 0,
               encoding: str = "mulaw") -> np.ndarray:
    """Read a recording at `rate` Hz as codes of a network, uint8 or uint16 (P,).

    seconds: of its beginning, 0 for all of it. encoding: of the codes.
    Raises UserError for a file that is no recording.
    """
    samples = read_recording(path, rate, Excerpt(seconds=seconds))
    return encode_sound(samples, levels, encoding)[0]


def _named_files(flag: str, path: Path | str) -> Iterable[tuple[str, Path]]:
    """List names and paths of the file that a flag names, or of all files below that folder."""
    path = Path(path)
    if not os.path.isdir(path):  # Path.is_dir raises where the parent may not be entered
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
    if len(set(names)) < len(names):  # two files differ in their endings only
        names = [decode_filename(one.relative_to(path).as_posix()) for one in found]
    return tqdm(list(zip(names, found, strict=True)), desc=flag[2:], unit="file", leave=False,
                disable=None)
