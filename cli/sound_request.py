"""What infer_wavenet.py is to draw, resolved from its flags: sounds for each model."""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path

from cli.arguments import Length
from cli.labels import resolve_labels
from cli.model_flags import resolve_model_files
from cli.primes import SoundFlags, SoundSource, resolve_sources
from cli.requests import RequestedModel, open_models, sampling_options
from cli.texts import read_text
from common.errors import UserError
from common.file_names import distinct_file_names
from common.files import make_folder
from common.moments import Every
from common.text import printable
from models.wavenet import WaveNetConfig
from sampling.output import sound as sound_output
from sampling.output.sound import Pipe, WavFiles, check_writable
from sampling.rendering import SamplingOptions
from sampling.sound_rendering import Sound, sound_batches
from sampling.speech import SpokenText


@dataclass(frozen=True)
class SoundRequest:
    """The sounds to draw from one model at `rate` Hz, and how. encoding: of its codes."""

    model: RequestedModel
    rate: int
    encoding: str
    sounds: tuple[Sound, ...]
    options: SamplingOptions

    def open_output(self, sounds: Sequence[Sound], every: Every) -> WavFiles | Pipe:
        """Open the wavs of these sounds, to be flushed at that interval, or standard output."""
        if self.model.folder is None:
            return Pipe(sys.stdout.fileno())
        return WavFiles([sound.wav for sound in sounds], self.rate, every)

    def summary(self, begun: Collection[Sound]) -> str:
        """Describe the sounds that were begun: where they are, how many, and their labels."""
        labels = dict.fromkeys(sound.label for sound in self.sounds
                               if sound in begun and sound.label is not None)
        names = ", ".join(printable(self.model.label_names[label]) for label in labels)
        return (f"{self.model.folder or 'stdout'}: {len(begun)} sound"
                + ("s" if len(begun) > 1 else "") + (f" of {names}" if names else ""))


def resolve_sound_requests(args: argparse.Namespace) -> list[SoundRequest]:
    """Resolve the flags of infer_wavenet.py into a request for each model; check all of them.

    The flags are those that `cli.sampling_arguments.complete_sound_flags` leaves.
    Raises UserError for a model, label, length, prime or features that can't be.
    """
    files = resolve_model_files(args.model, "wavenet", args.snapshots)
    folder = None if args.output == "-" else Path(args.output)
    endless = not args.length.number
    if len(files) > 1 and (endless or not folder):
        raise UserError(f"{'--length 0' if folder else '--output -'}: is for one model, and "
                        f"--model names {len(files)}; name one")
    text = None if args.text is None else read_text(args.text)
    flags = SoundFlags(args.prime, args.prime_seconds, args.features_from, text)
    naming = WavNaming(f"pred_{datetime.now():%Y%m%d-%H%M%S}" if args.timestamp else "sample",
                       number_single=not args.timestamp, name_labels=args.label == "all")
    requests: list[SoundRequest] = []
    sources_of_format: dict[tuple, list[SoundSource]] = {}  # models of one format share them
    for requested, loaded in open_models(files, "wavenet", folder, args):
        config, rate = loaded.model.config, loaded.data["rate"]
        encoding, speaks_texts = loaded.data["encoding"], loaded.speaks_texts
        key = rate, encoding, config.levels, str(loaded.data.get("features")), speaks_texts
        if key not in sources_of_format:
            sources_of_format[key] = resolve_sources(flags, requested.file, config, loaded.data,
                                                     speaks_texts)
        sources = sources_of_format[key]
        labels = resolve_labels(loaded.label_names, args.label, requested.file, len(files) > 1)
        lengths = lengths_of(sources, args.length, config, rate, limited=folder is not None)
        speak = None if text is None else partial(SpokenText, loaded.speech(), speed=args.speed,
                                                  pitch=args.pitch)
        sounds = list_sounds(requested, labels, sources, args.count, lengths, naming, speak)
        if not folder and len(sounds) > 1:
            raise UserError(f"--output -: is one sound, and below "
                            f"{args.prime or args.features_from} there are {len(sounds)} files; "
                            f"name one file")
        if endless:
            check_endless(config, sounds)
        requests.append(SoundRequest(requested, rate, encoding, tuple(sounds),
                                     sampling_options(args)))
    return requests


def differ_in_kind(requests: Sequence[SoundRequest]) -> bool:
    """Whether the sounds come from several models, labels, primes or features."""
    return len({(request.model.name, sound.row)
                for request in requests for sound in request.sounds}) > 1


def prepare_output(folder: str, requests: Sequence[SoundRequest], page: Path | None) -> None:
    """Make the folders, and check that wavs and page can be written. Raises UserError."""
    make_folder(folder, "--output")
    for request in requests:
        make_folder(request.model.folder or folder, "--output")
        check_writable([sound.path for sound in request.sounds if sound.path])
    check_writable([page] if page else [])


@dataclass(frozen=True)
class WavNaming:
    """How wavs are named: STEM[_LABEL][_SOURCE][_NUMBER].wav.

    number_single: whether a wav has a number also where it is the only one of a model.
    name_labels: whether the label is in the name.
    """

    stem: str
    number_single: bool
    name_labels: bool

    def path(self, folder: Path, label: str, source: str, number: str) -> Path:
        """Join the parts that are not empty."""
        return folder / ("_".join(filter(None, [self.stem, label, source, number])) + ".wav")


def lengths_of(sources: Sequence[SoundSource], length: Length, config: WaveNetConfig, rate: int,
               limited: bool) -> list[int | None]:
    """Work out how many samples to draw for each source, None for no end.

    limited: to what a wav can hold. Raises UserError for a length that a wav can't hold.
    """
    samples = length.samples(rate)
    lengths = [None if source.text is not None
               else samples if source.frames is None else len(source.frames) * config.hop
               for source in sources]
    if not limited:
        return lengths
    return [length_of_wav(of_source, len(source.prime), rate)
            for of_source, source in zip(lengths, sources, strict=True)]


def length_of_wav(samples: int | None, prime: int, rate: int) -> int:
    """Check that a wav can hold `samples` after a prime of `prime` samples, at `rate` Hz.

    None means as many as it can hold. Returns the number of samples; raises UserError.
    """
    most = sound_output.MOST_SAMPLES
    room = most - prime
    if room < (samples or 1):
        raise UserError(f"--length: a wav holds {most:,} samples, that is "
                        f"{most / rate / 3600:.3g} hours, a given beginning included; give "
                        f"a shorter length, or --output -")
    return samples or room


def list_sounds(model: RequestedModel, labels: Sequence[int | None],
                sources: Sequence[SoundSource], count: int, lengths: Sequence[int | None],
                naming: WavNaming,
                speak: Callable[[str, int | None], SpokenText] | None = None) -> list[Sound]:
    """List `count` sounds of a model for each source and label.

    speak: makes a text of the words and the label, if the model speaks.
    """
    label_parts = (distinct_file_names(model.label_names) if naming.name_labels
                   else [""] * len(model.label_names))
    several = len(sources) > 1
    source_parts = distinct_file_names([one.name for one in sources]) if several else [""]
    number_all = naming.number_single or len(labels) * len(sources) * count > 1
    sounds = []
    for (source, part, length), label, number in product(
            zip(sources, source_parts, lengths, strict=True), labels, range(count)):
        label_part = "" if label is None else label_parts[label]
        path = model.folder and naming.path(model.folder, label_part, part,
                                            str(number) if number_all else "")
        name = "" if label is None else model.label_names[label]
        row = ", ".join(filter(None, [name, source.name if several else ""])) or "samples"
        text = speak(source.text, label) if speak and source.text is not None else None
        sounds.append(Sound(number, label, length, source.prime, source.frames, text, path, row))
    return sounds


def check_endless(config: WaveNetConfig, sounds: Sequence[Sound]) -> None:
    """Refuse sounds without end that can't all be drawn at once. Raises UserError."""
    first, *others = sound_batches(config, sounds)
    if others and others[0][0].prime is not first[0].prime:
        raise UserError("--length 0: can go on from one recording only; give a length, or name one "
                        "file with --prime")
    if others:
        raise UserError(f"--length 0: {len(sounds)} sounds are too many to be drawn at once; give "
                        f"a length, or a lower --count, for {len(first)} at the most")
