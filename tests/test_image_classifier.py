"""The image classifier learns separable classes and is deterministic."""

import numpy as np
import torch

from benchmarks.image_classifier import ImageClassifier

SHAPE = 3, 7, 9


def spots(count, generator):
    """Colour images as vectors, with a bright spot in one channel, and that channel's name."""
    channels = np.arange(count) % SHAPE[0]
    images = generator.uniform(0, 0.3, (count, *SHAPE)).astype(np.float32)
    images[np.arange(count), channels, generator.integers(0, SHAPE[1], count),
           generator.integers(0, SHAPE[2], count)] = 1
    return images.reshape(count, -1), [("red", "green", "blue")[channel] for channel in channels]


def test_it_recognises_new_images_but_not_random_labels():
    generator = np.random.default_rng(0)
    vectors, classes = spots(600, generator)
    unseen, truth = spots(300, generator)
    predicted = ImageClassifier(SHAPE).fit(vectors, classes).predict(unseen)
    assert (predicted == np.array(truth)).mean() > 0.95
    shuffled = generator.permutation(classes)
    guessed = ImageClassifier(SHAPE).fit(vectors, shuffled).predict(unseen)
    assert (guessed == np.array(truth)).mean() < 0.6


def test_a_classifier_depends_only_on_its_seed():
    vectors, classes = spots(60, np.random.default_rng(0))
    state = torch.random.get_rng_state()
    scores = []
    for seed in (0, 0, 1):
        trained = ImageClassifier(SHAPE, seed).fit(vectors, classes)
        scores.append(trained.network(trained.images(vectors)))
        torch.rand(1)
    assert torch.equal(scores[0], scores[1]) and not torch.equal(scores[0], scores[2])
    torch.random.set_rng_state(state)
    ImageClassifier(SHAPE).fit(vectors, classes)
    assert torch.equal(torch.random.get_rng_state(), state)
