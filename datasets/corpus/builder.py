"""A collection of recordings made into a corpus."""

import hashlib
import json
import sys
from contextlib import closing
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from common.errors import UnfinishedError, UserError
from datasets.audio.encoding import Encoded, encoded
from datasets.audio.recordings import BLOCK
from datasets.corpus.journal import Journal
from datasets.corpus.manifest import ENTIRE_CORPUS, Count
from datasets.corpus.reader import validation_names
from datasets.corpus.writer import CorpusWriter, out_of_room
from datasets.quantization import code_dtype


class Entry(NamedTuple):
    """A recording in the corpus. loudness: the root of the mean square, of full scale 1."""

    label: str | None
    seconds: float
    loudness: float
    held_back: bool


class Note(NamedTuple):
    """An Encoded as a journal holds it: a list of these, for its files are gone."""

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
    """What became of a collection.

    entries: an Entry for each recording in the corpus. problems: {name: why it is left out}.
    clipped: samples beyond full scale. silent: samples of silence cut off. notes: {name: in what it
    is less than its header says} of recordings in the corpus.
    """

    entries: list
    problems: dict
    clipped: int
    silent: int
    notes: dict


def build_corpus(paths, recipe, folder, *, data, validation, strict, workers,
                 share=ENTIRE_CORPUS, **settings):
    """Write the recordings {name: path}, or a share of them, as a corpus into `folder`: a Gathered.

    data: what the user calls them. validation: as of `validation_names`. strict: what can't be used
    is an error. settings: of the CorpusWriter. Where the same was begun before and interrupted, it
    goes on. Raises UserError where nothing is left to train on, or what those that it calls do;
    then a corpus that was there before stays.
    """
    _check_split(validation, len(validation_names(paths, validation)), len(paths))
    problems = {}
    while True:
        readable = [name for name in paths if name not in problems]
        held_back = validation_names(readable, validation)
        own = {name: paths[name] for name in readable[share.number - 1::share.count]}
        collection = _digest(readable, sorted(held_back), _of_codes(recipe), recipe.labelling[1:],
                             _folder_labels(paths, recipe), settings)
        task = _digest(collection, recipe.labelling.root.resolve(),
                       [_state(file) for path in own.values() for file in recipe.files(path)])
        writer = CorpusWriter(folder, rate=recipe.rate, levels=recipe.levels, share=share,
                              features=recipe.features, collection=collection, **settings)
        try:
            with Journal(writer.journal, task) as journal, writer:
                gathered = _fill(writer, journal, own, held_back, recipe, workers, problems, strict)
                if share == ENTIRE_CORPUS:
                    _check_usable(data, paths, problems)
                    wanted = validation_names(paths.keys() - problems.keys(), validation)
                    _check_split(validation, len(wanted), len(paths) - len(problems))
                    filled = writer.recordings
                    if not filled["train"] or bool(filled["validation"]) != bool(wanted):
                        # What can't be read was all there was of one part: choose again.
                        continue
                writer.close()
                return gathered
        except OSError as error:
            raise out_of_room(folder, error) from None


def _fill(writer, journal, paths, held_back, recipe, workers, problems, strict):
    """Add the recordings {name: path} to the corpus: a Gathered, its `problems` those given."""
    entries, clipped, silent, notes = [], 0, 0, {}
    earlier = _earlier(writer, journal, paths, held_back, recipe.labelling.kind != "none")
    if earlier:
        print(f"going on after {len(earlier)} of {len(paths)} recordings that an interrupted run "
              "had prepared", file=sys.stderr)
    try:
        with TemporaryDirectory(prefix=f".{writer.share.stem}_recordings_", suffix=".temporary",
                                dir=writer.folder) as place, \
             closing(encoded(list(paths.values()), recipe, workers, place,
                             len(earlier))) as coming:
            for name, recording in zip(paths, chain(earlier, coming), strict=True):
                if recording.problem and strict:
                    raise UserError(recording.problem)
                if recording.note:
                    if strict:
                        raise UserError(f"{recording.note}; copy it again, or remove it")
                    notes[name] = recording.note
                if recording.codes:
                    writer.add(_part(name, held_back), name, recording.label,
                               *_blocks_of(recording, recipe))
                if recording.problem:
                    problems[name] = recording.problem
                else:
                    entries.append(Entry(recording.label, recording.length / recipe.rate,
                                         recording.loudness, name in held_back))
                clipped += recording.clipped
                silent += recording.silent
                if len(entries) + len(problems) > len(earlier):
                    journal.add(recording._replace(codes=None, frames=None))
                    if journal.is_due:
                        _save(writer, journal)
    except (KeyboardInterrupt, OSError, UnfinishedError):
        _save(writer, journal)
        raise
    return BuildResult(entries, problems, clipped, silent, notes)


def _earlier(writer, journal, paths, held_back, is_labelled):
    """What an interrupted run made of the first `paths`, which `writer` takes over: Encodeds."""
    try:
        earlier = [_of_note(note, is_labelled) for note in journal.notes]
        if len(earlier) > len(paths):
            raise ValueError("more notes than recordings")
    except (ValueError, RecursionError):  # damaged, or by another hand
        earlier = []
        journal.forget()
    if writer.resume([(_part(name, held_back), name, recording.label, recording.length)
                      for name, recording in zip(paths, earlier, strict=False)
                      if not recording.problem]):
        return earlier
    journal.forget()
    return []


def _of_note(note, is_labelled):
    """The Encoded that a journal's `note` tells of; ValueError where it is none that we wrote."""
    recording = Encoded(*msgspec.convert(note, Note))
    if recording.label is not None:
        recording.label.encode()  # text that is no Unicode can't be in a manifest
    if not recording.problem and (recording.length == 0
                                  or (recording.label is not None) != is_labelled):
        raise ValueError("neither a recording nor a problem")
    return recording


def _save(writer, journal):
    """Bring all so far down to the disk: the codes before the notes that say they are there."""
    writer.sync()
    journal.sync()


def _part(name, held_back):
    """The part of the corpus that the recording `name` belongs to."""
    return "validation" if name in held_back else "train"


def _blocks_of(recording, recipe):
    """The codes of an Encoded and, with features, its frames: each as blocks that are read."""
    yield _rows_in(recording.codes, code_dtype(recipe.levels))
    if recipe.features:
        yield _rows_in(recording.frames, np.dtype((np.float32, recipe.features.width)))


def _rows_in(path, row):
    """Yields the rows in a file, of the dtype `row`, block by block."""
    with open(path, "rb") as file:
        while len(rows := np.fromfile(file, row, max(BLOCK // row.itemsize, 1))):
            yield rows


def _of_codes(recipe):
    """All of a recipe but how labels are found; without features as before there were any.

    So parts that were prepared then go together with others. Features are a list of their values,
    as they were when a NamedTuple.
    """
    if not recipe.features:
        return recipe._replace(labelling=None)[:-1]
    return recipe._replace(labelling=None, features=msgspec.structs.astuple(recipe.features))


def _digest(*things):
    """A text that is the same for the same things, and hardly for others."""
    return hashlib.sha256(json.dumps(things, default=str).encode()).hexdigest()


def _state(path):
    """What a file that was changed would not have kept: size and time; None if there is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def _folder_labels(paths, recipe):
    """The labels that come from folders, which may be named otherwise on another machine."""
    if recipe.labelling.kind != "folder":
        return []
    return sorted({recipe.labelling.label_of(path) for path in paths.values()})


def _check_usable(data, paths, problems):
    """Raise UserError if all the `paths` have problems."""
    if len(problems) < len(paths):
        return
    first = next(iter(problems.values()))
    if Path(data).is_file():
        raise UserError(f"--data {first}")
    raise UserError(f"--data {data}: no recording in it can be used, the first: {first}")


def _check_split(wanted, held_back, count):
    """Raise UserError if a regular expression leaves nothing to train on, or to validate with."""
    if isinstance(wanted, str) and not 0 < held_back < count:
        raise UserError(f"--validation {wanted}: matches {held_back} of {count} recordings; "
                        "give an expression that some match and some don't")
