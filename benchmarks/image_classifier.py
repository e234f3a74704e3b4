"""What judges images: a small convolutional network that tells their classes apart."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = 16, 32  # of its convolutions, each followed by a maximum over 2×2
HIDDEN = 128
DROPOUT = 0.3
BATCH = 64
EPOCHS, UPDATES = 8, 500  # or more epochs, until there are so many updates
RATE = 2e-3  # of Adam, to 0 along a cosine


class ImageClassifier:
    """Learns classes of images from vectors of their pixels in [0, 1], which are of `shape`.

    shape: (channels, height, width). With the interface of scikit-learn's; the same seed gives the
    same classifier.
    """

    def __init__(self, shape, seed=0):
        self.shape, self.seed = shape, seed

    def fit(self, vectors, classes):
        """Itself, trained on images (N, channels · height · width) of N classes."""
        self.names, targets = np.unique(classes, return_inverse=True)
        images, targets = self.images(vectors), torch.from_numpy(targets)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = self.build()
            optimizer = torch.optim.Adam(self.network.parameters(), RATE)
            batches = -(-len(images) // BATCH)
            epochs = max(EPOCHS, -(-UPDATES // batches))
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
            for _ in range(epochs):
                for some in torch.randperm(len(images)).split(BATCH):
                    optimizer.zero_grad()
                    F.cross_entropy(self.network(images[some]), targets[some]).backward()
                    optimizer.step()
                    schedule.step()
        self.network.eval()
        return self

    def build(self):
        """The network, untrained."""
        channels, height, width = self.shape
        layers = []
        for wide in WIDTHS:
            layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU(),
                       nn.MaxPool2d(2, ceil_mode=True)]
            channels, height, width = wide, -(-height // 2), -(-width // 2)
        return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(DROPOUT),
                             nn.Linear(channels * height * width, HIDDEN), nn.ReLU(),
                             nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(self.names)))

    @torch.inference_mode()
    def predict(self, vectors):
        """The classes that images (N, channels · height · width) are taken for, N."""
        scores = [self.network(some) for some in self.images(vectors).split(1000)]
        return self.names[torch.cat(scores).argmax(dim=1).numpy()]

    def images(self, vectors):
        """As the network takes them: (N, channels, height, width)."""
        return torch.from_numpy(np.asarray(vectors, np.float32)).reshape(-1, *self.shape)
