"""Judges of samples: real data, a classifier trained on it, and how a model draws.

For a PixelCNN a small convolutional network predicts the class of an image; for a WaveNet a support
vector machine predicts the spoken digit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.image_classifier import ImageClassifier
from benchmarks.spoken_digits import (
    FLOOR_DB,
    FRAME,
    digit_features,
    digit_labels,
    first_ending,
    spectrogram,
    train_classifier,
)
from common.errors import UserError
from datasets.corpus.reader import Corpus
from datasets.images.dataset import ImageCodes, load_images
from datasets.quantization import decode_sound
from models.model_file import ModelFile
from models.pixelcnn import PixelCNN
from models.wavenet import WaveNet
from sampling.pixelcnn import sample_images
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds

BATCH_SIZE = 100  # samples drawn at once


@dataclass(frozen=True)
class Drawing:
    """How to draw samples. count: in all for each class or digit. seed: also the classifier's."""

    count: int = 100
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class Items(NamedTuple):
    """Real data or samples.

    vectors: (N, features), for distances and the classifier. classes: N names. picture: a function
    from an index to what is plotted, in [0, 1]: (height, width) or (height, width, 3).
    """

    vectors: np.ndarray
    classes: list[str]
    picture: Callable[[int], np.ndarray]


class Judge(NamedTuple):
    """Training data, unseen data, and a classifier trained on `train`, which has predict().

    draw: draws samples of each label with a model: of the same data as the judge's model.
    """

    train: Items
    unseen: Items
    classifier: Any
    draw: Callable[[Any], Items]

    def recognises(self, items: Items) -> np.ndarray:
        """Whether the classifier finds each item's own class: (N,), bool."""
        return self.classifier.predict(items.vectors) == np.array(items.classes)


def draw_codes(model: WaveNet, labels: torch.Tensor, lengths: list[int], drawing: Drawing,
               first_stream: int = 0) -> list[np.ndarray]:
    """Draw the codes of a sound of each of the labels (N,), with so many samples each.

    first_stream: the random stream of the first sound; the others have the next ones.
    """
    drawn: list[np.ndarray] = []
    batches = torch.arange(len(labels)).split(BATCH_SIZE)
    for batch in tqdm(batches, desc="drawing", disable=None):
        longest = max(lengths[index] for index in batch)
        streams = RandomStreams(drawing.seed, (first_stream + batch).tolist())
        codes = torch.cat(list(sample_sounds(model, streams, labels[batch], longest,
                                             drawing.temperature, drawing.top_p)), dim=1)
        drawn += [row[:lengths[index]].numpy() for row, index in zip(codes, batch, strict=True)]
    return drawn


def make_judge(network: str, path: str | Path, file: ModelFile, data: str,
               drawing: Drawing) -> Judge:
    """Make the judge of a model's samples.

    network: pixelcnn or wavenet. path: of the model file, for errors. data: the folder of the
    published sets, or a corpus. Raises UserError for a model without suitable labels.
    """
    return (image_judge if network == "pixelcnn" else sound_judge)(path, file, data, drawing)


def image_judge(path: str | Path, file: ModelFile, data: str, drawing: Drawing) -> Judge:
    """The judge of images by class."""
    label_names, about = file.label_names, file.data
    if not label_names:
        raise UserError(f"{path}: is not conditioned on classes; name a model that is")
    data_set = load_images(about["dataset"], data, about["height"], about["width"])
    levels = about["levels"]

    def make_items(codes: torch.Tensor, labels: Any) -> Items:
        scaled = codes.numpy().astype(np.float32) / (levels - 1)
        pictures = scaled[:, 0] if codes.shape[1] == 1 else scaled.transpose(0, 2, 3, 1)
        return Items(scaled.reshape(len(codes), -1), [label_names[label] for label in labels],
                     lambda index: pictures[index])

    def read_items(split):
        images = ImageCodes(*split, levels, about["binarize"], fixed=True)
        return make_items(images[np.arange(len(images))].codes, images.labels)

    def draw(model: PixelCNN) -> Items:
        labels = torch.arange(len(label_names)).repeat_interleave(drawing.count)
        streams = torch.arange(len(labels))
        codes = torch.cat([
            sample_images(model, RandomStreams(drawing.seed, batch.tolist()), labels[batch],
                          about["height"], about["width"], drawing.temperature, drawing.top_p)
            for batch in tqdm(streams.split(BATCH_SIZE), desc="drawing", disable=None)])
        return make_items(codes, labels)

    train, unseen = read_items(data_set.train), read_items(data_set.test or data_set.validation)
    shape = about["channels"], about["height"], about["width"]
    classifier = ImageClassifier(shape, drawing.seed).fit(train.vectors, train.classes)
    return Judge(train, unseen, classifier, draw)


def sound_judge(path: str | Path, file: ModelFile, data: str, drawing: Drawing) -> Judge:
    """The judge of spoken digits.

    A sample lasts to its ending, if the recordings have endings (`first_ending`). Otherwise it is
    as long as a random recording of its label, which cuts slow words, and lets what no recording
    has follow quick ones.
    """
    label_names = file.label_names
    if not label_names or any(name[0] not in "0123456789" for name in label_names):
        raise UserError(f"{path}: has labels that don't begin with a digit, or none; name a "
                        "model whose labels do")
    corpus = Corpus(data)
    if corpus.label_names != label_names:
        raise UserError(f"{data}: has other labels than {path}; name the corpus that "
                        "it was trained on")

    def make_items(codes: list[np.ndarray], classes: list[str]) -> Items:
        ends = [first_ending(one, corpus.levels, corpus.rate) for one in codes]
        least = round(FRAME * corpus.rate)
        sounds = [decode_sound(one[:None if end is None else max(end, least)], corpus.levels,
                               corpus.encoding) for one, end in zip(codes, ends, strict=True)]
        vectors = np.stack([digit_features(sound, corpus.rate) for sound in sounds])
        return Items(vectors, classes,
                     lambda index: 1 - spectrogram(sounds[index], corpus.rate)[::-1] / FLOOR_DB)

    def read_items(split):
        indices = tqdm(range(len(split.recordings)), desc="reading", disable=None)
        return make_items([split.codes(index) for index in indices], digit_labels(split))

    def draw(model: WaveNet) -> Items:
        digits = {name[0] for name in label_names}
        count = max(drawing.count // (len(label_names) // len(digits)), 1)
        labels = torch.arange(len(label_names)).repeat_interleave(count)
        generator = np.random.default_rng(drawing.seed)
        by_label = [[recording.length for recording in corpus.train.recordings
                     if recording.label == label] for label in range(len(label_names))]
        lengths = [max(by_label[label]) if have_endings else int(generator.choice(by_label[label]))
                   for label in labels]
        return make_items(draw_codes(model, labels, lengths, drawing),
                          [label_names[label][0] for label in labels])

    have_endings = all(first_ending(corpus.train.codes(index), corpus.levels, corpus.rate)
                       is not None for index in range(len(corpus.train.recordings)))
    train = read_items(corpus.train)
    return Judge(train, read_items(corpus.validation),
                 train_classifier(train.vectors, train.classes), draw)
