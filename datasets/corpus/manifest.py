"""The manifest of a corpus: its name, its content, and how to read and check it.

A manifest may come from a stranger. So it can only name files that the writer makes, and every
number is checked before a shard is opened or a network is built.
"""

import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from common.errors import UserError
from common.files import os_errors_as_lines
from common.headers import checked
from datasets.audio.features import Features
from datasets.quantization import AUDIO_LEVELS

FORMAT = 1
SPLITS = ("train", "validation")
SETTINGS = ("rate", "levels", "stacks_num", "layers_num", "target_length")
MAX_RECEPTIVE_FIELD = 2 ** 24  # samples, those of one stack of 24 layers
AGAIN = "run preprocess.py again"

Count = Annotated[int, Meta(ge=0, le=2 ** 53)]


class CorpusPart(NamedTuple):
    """What one of `count` machines prepares: every count-th recording, from `number` on."""

    number: int  # from 1 up
    count: int  # type: ignore[assignment]  # hides tuple.count

    @property
    def stem(self) -> str:
        """The beginning of its files' names."""
        return "vctk" if self == ENTIRE_CORPUS else f"vctk_{self.number}_of_{self.count}"

    @property
    def manifest(self) -> str:
        """The name of its manifest."""
        return f"{self.stem}_manifest.json"

    def shard(self, split: str, number: int) -> tuple[str, str]:
        """Return the file names of codes and frames of shard `number`, from 0 up, of a split."""
        return (f"{self.stem}_{split}_{number:05d}.npy",
                f"{self.stem}_{split}_features_{number:05d}.npy")


ENTIRE_CORPUS = CorpusPart(1, 1)
PART_MANIFEST = re.compile(r"vctk_([1-9]\d*)_of_([1-9]\d*)_manifest\.json")


def parts_in(folder: str | Path) -> list[CorpusPart]:
    """List the parts whose manifests lie in `folder`, sorted."""
    found = [CorpusPart(*map(int, match.groups()))
             for path in Path(folder).glob("vctk_*_manifest.json")
             if (match := PART_MANIFEST.fullmatch(path.name))]
    return sorted([ENTIRE_CORPUS] * Path(folder, ENTIRE_CORPUS.manifest).exists() + found)


class Settings(msgspec.Struct, frozen=True):
    """The settings of sound and network that preprocess.py was run with."""

    rate: Annotated[int, Meta(ge=1, le=1_000_000)]
    levels: Annotated[int, Meta(ge=2, le=AUDIO_LEVELS)]
    stacks_num: Annotated[int, Meta(ge=1, le=1000)]
    layers_num: Annotated[int, Meta(ge=1, le=24)]
    target_length: Annotated[int, Meta(ge=1, le=2 ** 22)]

    def __post_init__(self):
        if self.stacks_num << self.layers_num > MAX_RECEPTIVE_FIELD:
            raise ValueError(f"stacks_num {self.stacks_num}, layers_num {self.layers_num}: the "
                             f"receptive field is longer than {MAX_RECEPTIVE_FIELD:,} samples")


class Shard(msgspec.Struct, frozen=True):
    """A file of codes and, with features, a file of frames."""

    file: str
    samples: Count
    features: str | None = None
    frames: Count | None = None


class StoredRecording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a recording lies. name: the bytes of its path, which need not be text."""

    name: Annotated[bytes, Meta(min_length=1)]
    label: Count | None
    shard: Count
    offset: Count
    length: Annotated[int, Meta(ge=1, le=2 ** 53)]


class StoredSplit(msgspec.Struct, frozen=True):
    """One split of a corpus."""

    shards: list[Shard]
    recordings: list[StoredRecording]


class StoredSplits(msgspec.Struct, frozen=True):
    """All SPLITS."""

    train: StoredSplit
    validation: StoredSplit


class Manifest(Settings, frozen=True, kw_only=True):
    """A manifest. collection: a text that all parts of a corpus have in common."""

    format: Literal[1]  # FORMAT
    label_names: list[str]
    splits: StoredSplits = msgspec.field(name="parts")
    features: Features | None = None
    collection: str | None = None
    encoding: Literal["mulaw", "linear"] = "mulaw"

    @property
    def settings(self) -> tuple[int, ...]:
        """The settings in the order of SETTINGS."""
        return tuple(getattr(self, name) for name in SETTINGS)


def check_settings(settings: dict[str, Any]) -> None:
    """Raise UserError naming the parameter unless a manifest may hold `settings`."""
    for field in msgspec.structs.fields(Settings):
        meta, = field.type.__metadata__
        value = settings[field.name]
        if not meta.ge <= value <= meta.le:
            raise UserError(f"{value}: out of range; give {meta.ge} to {meta.le}",
                            parameter=field.name)
    try:
        Settings(**settings)
    except ValueError as error:
        parameter, _, text = str(error).partition(" ")
        raise UserError(f"{text}; give fewer", parameter=parameter) from None


def read_manifest(folder: Path, part: CorpusPart) -> Manifest:
    """Read the manifest of a part in `folder`, and check everything that doesn't need its shards.

    Raises UserError naming the file and the field that is wrong.
    """
    path = folder / part.manifest
    content = _plain(path)
    version = content.get("format")
    if type(version) is int and version != FORMAT and 0 <= version < 1000:
        raise UserError(f"{path}: format {version}, this program reads {FORMAT}; {AGAIN}")
    manifest = checked(content, Manifest, path, AGAIN)
    wrong = next(_contradictions(manifest, part), None)
    if wrong:
        raise UserError(f"{path}: damaged ({wrong}); {AGAIN}")
    return manifest


def _plain(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, with the names of recordings as bytes."""
    if not path.is_file():  # opening a named pipe would wait
        raise UserError(f"{path}: is no file; {AGAIN}")
    try:
        with os_errors_as_lines(path, "can't be read", "make it readable"):
            text = path.read_bytes()
        # json, because strict parsers refuse the escaped surrogates in names that are no Unicode.
        content = json.loads(text, object_hook=_with_bytes)
        if not isinstance(content, dict):
            raise ValueError("no object in braces")
    except RecursionError:
        raise UserError(f"{path}: not a manifest (nested too deeply); {AGAIN}") from None
    except ValueError as error:
        raise UserError(f"{path}: not a manifest ({error}); {AGAIN}") from None
    return content


def _with_bytes(entry: dict[str, Any]) -> dict[str, Any]:
    """Convert the field `name` of a JSON object, a file's name, to bytes. May raise ValueError."""
    if isinstance(entry.get("name"), str):
        entry["name"] = os.fsencode(entry["name"])
    return entry


def _contradictions(manifest: Manifest, part: CorpusPart) -> Iterator[str]:
    """Yield descriptions of fields that contradict each other."""
    if part != ENTIRE_CORPUS and not manifest.collection:
        yield "collection: missing"
    if len(set(manifest.label_names)) < len(manifest.label_names):
        yield "label_names: one of them is there twice"
    names = set()
    for name in SPLITS:
        split, place = getattr(manifest.splits, name), f"parts.{name}"
        yield from _wrong_shards(split, place, part, name, manifest.features)
        yield from _wrong_recordings(split, place, len(manifest.label_names))
        for number, recording in enumerate(split.recordings):
            if recording.name in names:
                yield f"{place}.recordings[{number}].name: is that of another recording too"
            names.add(recording.name)


def _wrong_shards(split: StoredSplit, place: str, part: CorpusPart, name: str,
                  features: Features | None) -> Iterator[str]:
    for number, shard in enumerate(split.shards):
        codes, frames = part.shard(name, number)
        if shard.file != codes:
            yield f"{place}.shards[{number}].file: is not {codes}"
        if features and shard.features != frames:
            yield f"{place}.shards[{number}].features: is not {frames}"
        if features and shard.frames is None:
            yield f"{place}.shards[{number}].frames: missing"


def _wrong_recordings(split: StoredSplit, place: str, labels: int) -> Iterator[str]:
    for number, recording in enumerate(split.recordings):
        field = f"{place}.recordings[{number}]"
        if recording.shard >= len(split.shards):
            yield f"{field}.shard: {recording.shard} of {len(split.shards)}"
        elif recording.offset + recording.length > split.shards[recording.shard].samples:
            yield f"{field}: does not lie in its shard"
        if labels and recording.label is None:
            yield f"{field}.label: missing"
        if recording.label is not None and recording.label >= labels:
            yield f"{field}.label: {recording.label} of {labels}"
    order = sorted(split.recordings, key=lambda recording: (recording.shard, recording.offset))
    for before, after in pairwise(order):
        if before.shard == after.shard and before.offset + before.length > after.offset:
            yield f"{place}.recordings[{split.recordings.index(after)}]: overlaps another"
