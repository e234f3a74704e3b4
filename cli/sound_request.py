"""What infer_wavenet.py draws: takes of sound, for each model, label and given beginning."""

from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from cli.labels import distinct, labels_asked, names_of_models
from cli.primes import Given, given_asked
from common.errors import UserError
from common.text import printable
from models.model_file import check_flags, load
from sampling.output import sound
from sampling.output.page import facts_of
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds

# Drawn at once, and kept of their past: these bound the memory.
BATCH_SOUNDS, BATCH_FLOATS = 64, 2 ** 28


class Take(NamedTuple):
    """A sound to be drawn.

    label: its number, or None. number: of the take, for this label and what is given; also that of
    its stream of random numbers. given: a Given. length: in samples, without those that are given;
    None for no end. path: of its wav, None for a player. row: what it is one of, in words.
    """

    label: int | None
    number: int
    given: Given
    length: int | None
    path: Path | None
    row: str


class Session(NamedTuple):
    """What is drawn from one model.

    file: of the model. name: short, of its own. folder: for the wavs, None for a player. rate: in
    Hz. label_names: the model's. takes: a list of Take. facts: of `page.facts_of`.
    """

    file: Path
    name: str
    folder: Path | None
    rate: int
    label_names: list
    takes: list
    facts: dict

    def told(self, paths):
        """In words where those of its takes are that have these paths, and what of."""
        takes = [take for take in self.takes if take.path in paths]
        of = dict.fromkeys(take.label for take in takes) if self.label_names else {}
        names = ", ".join(printable(self.label_names[label]) for label in of)
        return (f"{self.folder or 'stdout'}: {len(takes)} sound{'s' * (len(takes) > 1)}"
                + f" of {names}" * bool(names))


def sessions(files, folder, stem, args):
    """A Session for each of the model `files`, all of which is checked before anything is drawn.

    folder: for the wavs, None for a player; where there are several models, each has one in it.
    stem: that the wavs' names begin with. args: of infer_wavenet.py.
    Raises UserError for a model, label, length, prime or features that can't be.
    """
    if len(files) > 1 and not (folder and args.length.number):
        raise UserError(f"{'--length 0' if folder else '--output -'}: is for one model, and "
                        f"--model names {len(files)}; name one")
    names, found, given = names_of_models(files), [], {}
    for file, name in zip(files, names, strict=True):
        model, label_names, data, content = load(file, "wavenet")
        rate, levels = data["rate"], model.config.levels
        check_flags(file, {**content["config"], "rate": rate}, vars(args))
        kind = rate, levels, str(data.get("features"))
        if kind not in given:
            given[kind] = given_asked(args, file, model.config, data)
        own = folder / name if folder and len(files) > 1 else folder
        labels = labels_asked(label_names, args.label, file, len(files) > 1)
        takes = takes_asked(labels, model.config, rate, given[kind], label_names, own, stem,
                            args)
        if not folder and len(takes) > 1:
            folder_named = args.prime or args.features_from
            raise UserError(f"--output -: is one sound, and below {folder_named} there are "
                            f"{len(takes)} files; name one file")
        if not args.length.number:
            check_endless(model, takes)
        found.append(Session(file, name, own, rate, label_names, takes,
                             facts_of(file, content, model)))
    return found


def comparable(sessions):
    """Whether they are of several models, labels, primes or features."""
    return len({(session.name, take.row) for session in sessions for take in session.takes}) > 1


def takes_asked(labels, config, rate, given, label_names, folder, stem, args):
    """The takes of one model: --count for each of the `labels`, and each Given of a list.

    labels: of `labels_asked`. config, rate, label_names: the model's. folder: for the wavs, None
    for a player. stem: that the wavs' names begin with, alone where there is one take and a time
    stamp. args: of infer_wavenet.py.
    Raises UserError for a length that a wav can't hold.
    """
    length = args.length.samples(rate)
    several = len(given) > 1
    of_labels = distinct(label_names) if args.label == "all" else [""] * len(label_names)
    of_given = distinct([one.name for one in given]) if several else [""]
    one_of_its_name = args.timestamp and len(labels) * len(given) * args.count == 1
    takes = []
    for one, of_one in zip(given, of_given, strict=True):
        its_length = length if one.frames is None else len(one.frames) * config.hop
        if folder:
            its_length = sound.length_of_wav(its_length, len(one.codes), rate)
        for label in labels:
            name = "" if label is None else label_names[label]
            row = ", ".join(filter(None, [name, one.name if several else ""])) or "samples"
            for number in range(args.count):
                parts = [stem, "" if label is None else of_labels[label], of_one,
                         "" if one_of_its_name else str(number)]
                path = folder and folder / ("_".join(filter(None, parts)) + ".wav")
                takes.append(Take(label, number, one, its_length, path, row))
    return takes


def batches(model, takes):
    """The takes in lists that can be drawn at once: as many as the memory can hold.

    Those that go on from something are of one Given; those that say features are of like lengths.
    """
    config = model.config
    kept = config.receptive_field * config.hidden_dim  # floats of a sound's past
    if config.features:
        groups = [sorted(takes, key=lambda take: take.length)]
        longest = len(groups[0][-1].given.frames)
        kept += longest * (config.features + 2 * config.hidden_dim)
    else:
        groups = [list(group) for _, group in groupby(takes, lambda take: id(take.given))]
    at_once = max(1, min(BATCH_SOUNDS, BATCH_FLOATS // kept))
    return [group[i:i + at_once] for group in groups for i in range(0, len(group), at_once)]


def check_endless(model, takes):
    """Raises UserError if not all takes can be drawn at once, as they must be without an end."""
    first, *others = batches(model, takes)
    if others and others[0][0].given is not first[0].given:
        raise UserError("--length 0: can go on from one recording only; give a length, or name one "
                        "file with --prime")
    if others:
        raise UserError(f"--length 0: {len(takes)} sounds are too many to be drawn at once; give a "
                        f"length, or a lower --count, for {len(first)} at the most")


def draw(model, batch, args):
    """The codes of a batch of takes, (takes, n) each time. args: of the script."""
    label = None if batch[0].label is None else torch.tensor(
        [take.label for take in batch], device=model.logits.weight.device)
    codes = torch.from_numpy(batch[0].given.codes.astype(np.int64)).expand(len(batch), -1)
    frames = None
    if model.config.features:
        frames = [torch.from_numpy(take.given.frames) for take in batch]
    longest = batch[-1].length
    return sample_sounds(model, RandomStreams(args.seed, [take.number for take in batch]), label,
                         longest, args.temperature, args.top_p, codes, args.precision,
                         frames=frames)


def perform(model, takes, output_of, progress, signals, args):
    """Draw the takes, and write them while they are drawn; a signal ends it early.

    output_of: what a batch is written with, a `sound.WavFiles` or a `sound.Pipe`, of its takes.
    progress: a `sound.Progress`. signals: a `common.signals.Signals`. args: of the script.
    Returns {path: seconds} of each take begun: its share of its batch's, by its length.
    """
    pcm, seconds = sound.pcm_of_codes(model.config.levels), {}
    for batch in batches(model, takes):
        before = progress.seconds
        lengths = [take.length for take in batch]
        sound.record(draw(model, batch, args), lengths, output_of(batch), batch[0].given.codes, pcm,
                     progress, signals)
        for take in batch:
            share = take.length / sum(lengths) if take.length else 1 / len(batch)
            seconds[take.path] = share * (progress.seconds - before)
        if signals.number:
            break
    return seconds
