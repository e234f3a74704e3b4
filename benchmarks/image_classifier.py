"""A small convolutional network that classifies images, to judge samples with."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = 16, 32  # of the convolutions; 2×2 max pooling follows each
HIDDEN = 128
DROPOUT = 0.3
BATCH_SIZE = 64
EPOCHS, UPDATES = 8, 500  # the minimum of both
LEARNING_RATE = 2e-3  # of Adam; falls to 0 along a cosine


class ImageClassifier:
    """Classifies images given as vectors of pixels in [0, 1], with scikit-learn's interface.

    shape: (channels, height, width) of an image. The same seed gives the same classifier.
    """

    def __init__(self, shape: Sequence[int], seed: int = 0) -> None:
        self.shape, self.seed = shape, seed

    def fit(self, vectors: np.ndarray, classes: Sequence[str]) -> "ImageClassifier":
        """Train on images (N, channels · height · width) and their N classes; return self."""
        self.names, indices = np.unique(classes, return_inverse=True)
        images, targets = self.images(vectors), torch.from_numpy(indices)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = self.build()
            optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
            batches = -(-len(images) // BATCH_SIZE)
            epochs = max(EPOCHS, -(-UPDATES // batches))
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
            for _ in range(epochs):
                for batch in torch.randperm(len(images)).split(BATCH_SIZE):
                    optimizer.zero_grad()
                    F.cross_entropy(self.network(images[batch]), targets[batch]).backward()
                    optimizer.step()
                    schedule.step()
        self.network.eval()
        return self

    def build(self) -> nn.Sequential:
        """Build the untrained network."""
        channels, height, width = self.shape
        layers: list[nn.Module] = []
        for out_channels in WIDTHS:
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(),
                       nn.MaxPool2d(2, ceil_mode=True)]
            channels, height, width = out_channels, -(-height // 2), -(-width // 2)
        return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(DROPOUT),
                             nn.Linear(channels * height * width, HIDDEN), nn.ReLU(),
                             nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(self.names)))

    @torch.inference_mode()
    def predict(self, vectors: np.ndarray) -> np.ndarray:
        """The N predicted classes of images (N, channels · height · width)."""
        scores = [self.network(batch) for batch in self.images(vectors).split(1000)]
        return self.names[torch.cat(scores).argmax(dim=1).numpy()]

    def images(self, vectors: np.ndarray) -> torch.Tensor:
        """Reshape vectors to the network's input (N, channels, height, width)."""
        return torch.from_numpy(np.asarray(vectors, np.float32)).reshape(-1, *self.shape)
