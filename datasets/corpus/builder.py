"""Turn a collection of recordings into a corpus."""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from common.errors import UnfinishedError, UserError
from datasets.audio.encoding import EncodedRecording, EncodingConfig, encode_recordings
from datasets.audio.recordings import BLOCK_FRAMES
from datasets.corpus.journal import Journal, JournalLockedError
from datasets.corpus.manifest import ENTIRE_CORPUS, CorpusPart, Count
from datasets.corpus.splitting import Piece, Splitting, check_split, validation_names
from datasets.corpus.writer import CorpusWriter, needing_room
from datasets.quantization import code_dtype


class Entry(NamedTuple):
    """A recording in the corpus.

    seconds: of sound. loudness: its root mean square, full scale being 1. held_back: the seconds
    held back for validation.
    """

    label: str | None
    seconds: float
    loudness: float
    held_back: float


class JournalRecord(NamedTuple):
    """An EncodedRecording in a journal, where it is a list of these; its files are gone."""

    codes: None
    label: str | None
    length: Count
    clipped: Count
    silent: Count
    loudness: Annotated[float, Meta(ge=0, le=1e39)]
    problem: str | None
    frames: None = None
    note: str | None = None


class BuildResult(NamedTuple):
    """What a corpus was built from.

    entries: an Entry for each recording in the corpus. problems: {name: why it is left out}.
    clipped: samples beyond full scale. silent: samples of silence cut off. notes: {name: what it
    lacks of what its header says} for recordings in the corpus.
    """

    entries: list[Entry]
    problems: dict[str, str]
    clipped: int
    silent: int
    notes: dict[str, str]


def build_corpus(paths: dict[str, Path], config: EncodingConfig, output: str | Path, *,
                 data: str, validation: float | str, strict: bool, workers: int,
                 validation_of: str = "recordings", part: CorpusPart = ENTIRE_CORPUS,
                 **settings: Any) -> BuildResult:
    """Write the recordings {name: path}, or a part of them, as a corpus into the folder `output`.

    data: how the user names the recordings. validation: see `validation_names`; with
    `validation_of` "each" the fraction of each recording that is held back, at its end. strict:
    refuse recordings that can't be used. settings: of the CorpusWriter. Continues an interrupted
    run of the same task.
    Raises UserError if nothing is left to train on, and what the called functions raise; an earlier
    corpus then stays.
    """
    check_split(validation, len(validation_names(paths, validation)), len(paths))
    tail = float(validation) if validation_of == "each" else 0.0
    wanted = 0 if tail else validation  # of whole recordings
    hop = config.features.hop if config.features else 1
    problems: dict[str, str] = {}
    while True:
        usable = [name for name in paths if name not in problems]
        splitting = Splitting(validation_names(usable, wanted), config.rate, tail, hop)
        own = {name: paths[name] for name in usable[part.number - 1::part.count]}
        collection = _fingerprint(usable, sorted(splitting.names), _config_values(config),
                                  config.labelling.values, _folder_labels(paths, config), settings,
                                  *([tail] if tail else []))
        task = _fingerprint(collection, config.labelling.root.resolve(),
                            [_file_state(file) for path in own.values()
                             for file in config.files(path)])
        writer = CorpusWriter(output, rate=config.rate, levels=config.levels, part=part,
                              features=config.features, collection=collection,
                              encoding=config.encoding, **settings)
        with needing_room(output), _open_journal(writer, task, output) as journal, writer:
            result = _add_recordings(writer, journal, own, splitting, config, workers, problems,
                                     strict)
            if part == ENTIRE_CORPUS:
                _check_usable(data, paths, problems)
                names = validation_names(paths.keys() - problems.keys(), wanted)
                check_split(validation, len(names), len(paths) - len(problems))
                filled = writer.recordings
                if not tail and (not filled["train"] or bool(filled["validation"]) != bool(names)):
                    # Unreadable recordings were all there was of one split: split again.
                    continue
            writer.close()
            return result


def _open_journal(writer: CorpusWriter, task: str, output: str | Path) -> Journal:
    """Open the journal of the `task`. Raises UserError if another process has opened it."""
    try:
        return Journal(writer.journal, task)
    except JournalLockedError:
        raise UserError(f"{output}: another preprocess.py is writing there; wait for its end, or "
                        "give another folder", parameter="output") from None


def _add_recordings(writer: CorpusWriter, journal: Journal, paths: dict[str, Path],
                    splitting: Splitting, config: EncodingConfig, workers: int,
                    problems: dict[str, str], strict: bool) -> BuildResult:
    """Add the recordings {name: path} to the corpus. Adds to `problems`, and returns them too."""
    entries: list[Entry] = []
    clipped, silent = 0, 0
    notes: dict[str, str] = {}
    earlier = _resume_from_journal(writer, journal, paths, splitting,
                                   config.labelling.kinds != ("none",))
    if earlier:
        print(f"going on after {len(earlier)} of {len(paths)} recordings that an interrupted run "
              "had prepared", file=sys.stderr)
    try:
        with TemporaryDirectory(prefix=f".{writer.part.stem}_recordings_", suffix=".temporary",
                                dir=writer.folder) as folder, \
             closing(encode_recordings(list(paths.values()), config, workers, folder,
                                       len(earlier))) as coming:
            for name, recording in zip(paths, chain(earlier, coming), strict=True):
                if recording.problem and strict:
                    raise UserError(recording.problem)
                if recording.note:
                    if strict:
                        raise UserError(f"{recording.note}; copy it again, or remove it")
                    notes[name] = recording.note
                if recording.codes:
                    for piece in splitting.pieces(name, recording.length):
                        writer.add(piece.split, piece.name, recording.label,
                                   *_read_blocks(recording, piece, config))
                if recording.problem:
                    problems[name] = recording.problem
                else:
                    entries.append(Entry(recording.label, recording.length / config.rate,
                                         recording.loudness,
                                         splitting.held_back(name, recording.length) / config.rate))
                clipped += recording.clipped
                silent += recording.silent
                if len(entries) + len(problems) > len(earlier):
                    journal.add(recording._replace(codes=None, frames=None))
                    if journal.is_due:
                        _sync(writer, journal)
    except (KeyboardInterrupt, OSError, UnfinishedError):
        _sync(writer, journal)
        raise
    return BuildResult(entries, problems, clipped, silent, notes)


def _resume_from_journal(writer: CorpusWriter, journal: Journal, paths: dict[str, Path],
                         splitting: Splitting, is_labelled: bool) -> list[EncodedRecording]:
    """Let `writer` take over what an interrupted run made of the first `paths`; return it."""
    try:
        earlier = [_encoded_from_record(record, is_labelled) for record in journal.records]
        if len(earlier) > len(paths):
            raise ValueError("more records than recordings")
    except (ValueError, RecursionError):  # damaged, or not written by us
        earlier = []
        journal.reset()
    if writer.resume([(piece.split, piece.name, recording.label, piece.last - piece.first)
                      for name, recording in zip(paths, earlier, strict=False)
                      if not recording.problem
                      for piece in splitting.pieces(name, recording.length)]):
        return earlier
    journal.reset()
    return []


def _encoded_from_record(record: Any, is_labelled: bool) -> EncodedRecording:
    """Return the EncodedRecording in a journal's record; ValueError if we didn't write it."""
    recording = EncodedRecording(*msgspec.convert(record, JournalRecord))
    if recording.label is not None:
        recording.label.encode()  # a manifest can only hold valid Unicode
    if not recording.problem and (recording.length == 0
                                  or (recording.label is not None) != is_labelled):
        raise ValueError("neither a recording nor a problem")
    return recording


def _sync(writer: CorpusWriter, journal: Journal) -> None:
    """Flush everything so far to disk: the codes before the records that refer to them."""
    writer.sync()
    journal.sync()


def _read_blocks(recording: EncodedRecording, piece: Piece,
                 config: EncodingConfig) -> Iterator[Iterator[np.ndarray]]:
    """Yield the codes of a piece of a recording and, with features, its frames: each as blocks."""
    yield _read_rows(recording.codes, code_dtype(config.levels), piece.first, piece.last)
    if config.features:
        row = np.dtype((np.float32, config.features.width))
        yield _read_rows(recording.frames, row, config.features.count(piece.first),
                         config.features.count(piece.last))


def _read_rows(path: str | None, row: np.dtype, first: int, last: int) -> Iterator[np.ndarray]:
    """Yield the rows `first` to before `last` of a file, each of the dtype `row`, in blocks."""
    with open(str(path), "rb") as file:
        file.seek(first * row.itemsize)
        while first < last:
            count = min(max(BLOCK_FRAMES // row.itemsize, 1), last - first)
            rows = np.fromfile(file, row, count)
            first += count
            yield rows


def _config_values(config: EncodingConfig) -> tuple:
    """Return all of `config` except the labelling, as earlier versions did for the fingerprint.

    Parts of a corpus that they prepared must go with new parts: so a config without features
    leaves the field out, and features are a list of values. mulaw and no silence_after are left out
    likewise.
    """
    values: tuple = (None, config.rate, config.levels, config.excerpt, config.silence_threshold)
    if config.features:
        values += (msgspec.structs.astuple(config.features),)
    if config.encoding != "mulaw":
        values += (config.encoding,)
    return (*values, config.silence_after) if config.silence_after else values


def _fingerprint(*things: Any) -> str:
    """Return a text that is the same for equal things, and practically never for others."""
    return hashlib.sha256(json.dumps(things, default=str).encode()).hexdigest()


def _file_state(path: Path) -> tuple[int, int] | None:
    """Return size and time, which show whether a file has changed; None if there is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _folder_labels(paths: dict[str, Path], config: EncodingConfig) -> list[str]:
    """List the labels that come from folders, whose names may differ on another machine."""
    if "folder" not in config.labelling.kinds:
        return []
    return sorted({str(config.labelling.label_of(path)) for path in paths.values()})


def _check_usable(data: str, paths: dict[str, Path], problems: dict[str, str]) -> None:
    """Raise UserError if all `paths` have problems."""
    if len(problems) < len(paths):
        return
    first = next(iter(problems.values()))
    if Path(data).is_file():
        raise UserError(first, parameter="data")
    raise UserError(f"{data}: no recording in it can be used, the first: {first}",
                    parameter="data")
