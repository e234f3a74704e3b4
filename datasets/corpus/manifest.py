"""The manifest of a corpus: its name, what it may hold, and how it is read and checked.

A manifest may come from a stranger. So it names no file but those that the writer makes, and every
number is in range before a shard is opened or a network is built.
"""

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from common.errors import UserError
from common.headers import checked
from datasets.audio.features import Features
from datasets.quantization import AUDIO_LEVELS

FORMAT = 1
PARTS = ("train", "validation")
SETTINGS = ("rate", "levels", "stacks_num", "layers_num", "target_length")
RECEPTIVE_FIELD = 2 ** 24  # samples at most, as of one stack of 24 layers
AGAIN = "run preprocess.py again"

Count = Annotated[int, Meta(ge=0, le=2 ** 53)]


class CorpusPart(NamedTuple):
    """What one of `count` machines prepares: of the recordings every count-th, from `number` on."""

    number: int  # from 1 up
    count: int

    @property
    def stem(self):
        """What the names of its files begin with."""
        return "vctk" if self == ENTIRE_CORPUS else f"vctk_{self.number}_of_{self.count}"

    @property
    def manifest(self):
        """The name of its manifest."""
        return f"{self.stem}_manifest.json"

    def shard(self, part: str, number: int) -> tuple[str, str]:
        """The names of shard `number`, from 0 up, of a part: of its codes and of its frames."""
        return (f"{self.stem}_{part}_{number:05d}.npy",
                f"{self.stem}_{part}_features_{number:05d}.npy")


ENTIRE_CORPUS = CorpusPart(1, 1)
MANIFEST_OF_SHARE = re.compile(r"vctk_([1-9]\d*)_of_([1-9]\d*)_manifest\.json")


def shares_in(folder):
    """The Shares whose manifests lie in `folder`: a sorted list."""
    found = [CorpusPart(*map(int, match.groups()))
             for path in Path(folder).glob("vctk_*_manifest.json")
             if (match := MANIFEST_OF_SHARE.fullmatch(path.name))]
    return sorted([ENTIRE_CORPUS] * Path(folder, ENTIRE_CORPUS.manifest).exists() + found)


class Settings(msgspec.Struct, frozen=True):
    """What preprocess.py was told of sound and network."""

    rate: Annotated[int, Meta(ge=1, le=1_000_000)]
    levels: Annotated[int, Meta(ge=2, le=AUDIO_LEVELS)]
    stacks_num: Annotated[int, Meta(ge=1, le=1000)]
    layers_num: Annotated[int, Meta(ge=1, le=24)]
    target_length: Annotated[int, Meta(ge=1, le=2 ** 22)]

    def __post_init__(self):
        if self.stacks_num << self.layers_num > RECEPTIVE_FIELD:
            raise ValueError(f"stacks_num {self.stacks_num}, layers_num {self.layers_num}: the "
                             f"receptive field is longer than {RECEPTIVE_FIELD:,} samples")


class Shard(msgspec.Struct, frozen=True):
    """A file of codes and, with features, one of frames."""

    file: str
    samples: Count
    features: str | None = None
    frames: Count | None = None


class StoredRecording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a recording lies. name: a path's bytes, for these need not be text."""

    name: Annotated[bytes, Meta(min_length=1)]
    label: Count | None
    shard: Count
    offset: Count
    length: Annotated[int, Meta(ge=1, le=2 ** 53)]


class StoredPart(msgspec.Struct, frozen=True):
    """One part of a corpus."""

    shards: list[Shard]
    recordings: list[StoredRecording]


class StoredParts(msgspec.Struct, frozen=True):
    """All of PARTS."""

    train: StoredPart
    validation: StoredPart


class Manifest(Settings, frozen=True, kw_only=True):
    """All that is read of a manifest. collection: what all shares of a corpus have in common."""

    format: Literal[1]  # FORMAT
    label_names: list[str]
    parts: StoredParts
    features: Features | None = None
    collection: str | None = None

    @property
    def settings(self) -> tuple[int, ...]:
        """In the order of SETTINGS."""
        return tuple(getattr(self, name) for name in SETTINGS)


def check_settings(settings: dict[str, Any]) -> None:
    """Raises UserError naming the flag where {name: value} are not what a manifest may hold."""
    for field in msgspec.structs.fields(Settings):
        meta, = field.type.__metadata__
        value = settings[field.name]
        if not meta.ge <= value <= meta.le:
            raise UserError(f"--{field.name} {value}: out of range; give {meta.ge} to {meta.le}")
    try:
        Settings(**settings)
    except ValueError as error:
        raise UserError(f"--{error}; give fewer") from None


def read_manifest(folder: Path, share: CorpusPart) -> Manifest:
    """The manifest of a share in `folder`, all that can be checked without its shards being so.

    Raises UserError naming the file, and the field that is wrong.
    """
    path = folder / share.manifest
    content = _plain(path)
    version = content.get("format")
    if type(version) is int and version != FORMAT and 0 <= version < 1000:
        raise UserError(f"{path}: format {version}, this program reads {FORMAT}; {AGAIN}")
    manifest = checked(content, Manifest, path, AGAIN)
    wrong = next(_contradictions(manifest, share), None)
    if wrong:
        raise UserError(f"{path}: damaged ({wrong}); {AGAIN}")
    return manifest


def _plain(path: Path) -> dict[str, Any]:
    """The JSON object in a file, the names of recordings as bytes."""
    if not path.is_file():  # a named pipe would be waited for
        raise UserError(f"{path}: is no file; {AGAIN}")
    try:
        # JSON proper holds no text but Unicode; names of files that are none are escaped in it.
        content = json.loads(path.read_bytes(), object_hook=_with_bytes)
        if not isinstance(content, dict):
            raise ValueError("no object in braces")
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); make it readable") from None
    except RecursionError:
        raise UserError(f"{path}: not a manifest (nested too deeply); {AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{path}: not a manifest ({error}); {AGAIN}") from None
    return content


def _with_bytes(entry: dict[str, Any]) -> dict[str, Any]:
    """An object of JSON; what it calls `name` is that of a file. Raises ValueError if it can't."""
    if isinstance(entry.get("name"), str):
        entry["name"] = os.fsencode(entry["name"])
    return entry


def _contradictions(manifest: Manifest, share: CorpusPart):
    """Yields in words what in a manifest can't go together."""
    if share != ENTIRE_CORPUS and not manifest.collection:
        yield "collection: missing"
    if len(set(manifest.label_names)) < len(manifest.label_names):
        yield "label_names: one of them is there twice"
    names = set()
    for name in PARTS:
        part, place = getattr(manifest.parts, name), f"parts.{name}"
        yield from _wrong_shards(part, place, share, name, manifest.features)
        yield from _wrong_recordings(part, place, len(manifest.label_names))
        for number, recording in enumerate(part.recordings):
            if recording.name in names:
                yield f"{place}.recordings[{number}].name: is that of another recording too"
            names.add(recording.name)


def _wrong_shards(part, place, share, name, features):
    for number, shard in enumerate(part.shards):
        codes, frames = share.shard(name, number)
        if shard.file != codes:
            yield f"{place}.shards[{number}].file: is not {codes}"
        if features and shard.features != frames:
            yield f"{place}.shards[{number}].features: is not {frames}"
        if features and shard.frames is None:
            yield f"{place}.shards[{number}].frames: missing"


def _wrong_recordings(part, place, labels):
    for number, recording in enumerate(part.recordings):
        field = f"{place}.recordings[{number}]"
        if recording.shard >= len(part.shards):
            yield f"{field}.shard: {recording.shard} of {len(part.shards)}"
        elif recording.offset + recording.length > part.shards[recording.shard].samples:
            yield f"{field}: does not lie in its shard"
        if labels and recording.label is None:
            yield f"{field}.label: missing"
        if recording.label is not None and recording.label >= labels:
            yield f"{field}.label: {recording.label} of {labels}"
    order = sorted(part.recordings, key=lambda recording: (recording.shard, recording.offset))
    for before, after in pairwise(order):
        if before.shard == after.shard and before.offset + before.length > after.offset:
            yield f"{place}.recordings[{part.recordings.index(after)}]: overlaps another"
