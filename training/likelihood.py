"""The one loss of both networks, and the units it is told in."""

import math

import torch
import torch.nn.functional as F

from datasets.batches import IGNORED


def nll(model, batch):
    """Negative log-likelihood of a batch's targets in nats, mean over the targets: a scalar.

    A target is a sub-pixel or a sample; a dimension, in the papers' words.
    """
    logits = model(batch.codes, batch.label).movedim(1, -1)
    return F.cross_entropy(logits.flatten(0, -2), batch.targets.flatten(), ignore_index=IGNORED)


def count_targets(batch):
    """How many of a batch's targets are real."""
    return int((batch.targets != IGNORED).sum())


def evaluate(model, batches, device):
    """Mean negative log-likelihood over all the targets of `batches`, in nats: a float."""
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    targets = 0
    with torch.inference_mode():
        for batch in batches:
            count = count_targets(batch)
            total += nll(model, batch.to(device)).double() * count
            targets += count
    model.train()
    return (total / targets).item()


def in_units(mean_nll, prefix, dimensions=None):
    """`mean_nll` as the log tells it: {prefix/nll, prefix/bits/dim} and, of images, prefix/nats.

    dimensions: C·H·W of an image, for the nats of a whole image; None for sound.
    """
    report = {f"{prefix}/nll": mean_nll, f"{prefix}/bits/dim": mean_nll / math.log(2)}
    if dimensions:
        report[f"{prefix}/nats"] = mean_nll * dimensions
    return report
