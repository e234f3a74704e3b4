"""A collection of recordings made into a corpus."""

from typing import NamedTuple

from datasets.corpus import CorpusWriter, validation_names
from datasets.encoding import encoded
from datasets.errors import UserError


class Entry(NamedTuple):
    """A recording in the corpus. loudness: the root of the mean square, of full scale 1."""

    label: str | None
    seconds: float
    loudness: float
    held_back: bool


class Gathered(NamedTuple):
    """What became of a collection.

    entries: an Entry for each recording in the corpus. problems: {name: why it is left out}.
    clipped: samples beyond full scale. silent: samples of silence cut off.
    """

    entries: list
    problems: dict
    clipped: int
    silent: int


def gather(paths, recipe, folder, *, validation, strict, workers, **settings):
    """Write the recordings {name: path} as a corpus into `folder`: a Gathered.

    validation: as of `validation_names`. strict: what can't be used is an error. settings: of the
    CorpusWriter. Raises UserError where nothing is left to train on, or what those that it calls
    do; then a corpus that was there before stays.
    """
    _check_split(validation, len(validation_names(paths, validation)), len(paths))
    problems = {}
    while True:
        readable = {name: path for name, path in paths.items() if name not in problems}
        with CorpusWriter(folder, rate=recipe.rate, levels=recipe.levels, **settings) as writer:
            gathered = _fill(writer, readable, recipe, validation, workers, problems, strict)
            if len(problems) == len(paths):
                raise UserError(f"--data {recipe.labelling.root}: no recording in it can be used, "
                                f"the first: {problems[next(iter(paths))]}")
            wanted = validation_names(paths.keys() - problems.keys(), validation)
            _check_split(validation, len(wanted), len(paths) - len(problems))
            if writer.recordings["train"] and bool(writer.recordings["validation"]) == bool(wanted):
                writer.close()
                return gathered
        # What can't be read was all there was of one part: choose again among the others.


def _fill(writer, paths, recipe, validation, workers, problems, strict):
    """Add the recordings {name: path} to the corpus: a Gathered, its `problems` those given."""
    held_back = validation_names(paths, validation)
    entries, clipped, silent = [], 0, 0
    for name, recording in zip(paths, encoded(list(paths.values()), recipe, workers), strict=True):
        if recording.problem:
            if strict:
                raise UserError(recording.problem)
            problems[name] = recording.problem
            continue
        writer.add("validation" if name in held_back else "train", name, recording.label,
                   recording.codes)
        entries.append(Entry(recording.label, len(recording.codes) / recipe.rate,
                             recording.loudness, name in held_back))
        clipped += recording.clipped
        silent += recording.silent
    return Gathered(entries, problems, clipped, silent)


def _check_split(wanted, held_back, count):
    """Raise UserError if a regular expression leaves nothing to train on, or to validate with."""
    if isinstance(wanted, str) and not 0 < held_back < count:
        raise UserError(f"--validation {wanted}: matches {held_back} of {count} recordings; "
                        "give an expression that some match and some don't")
