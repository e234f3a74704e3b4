"""The one loss of both networks, and the units it is told in."""

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from datasets.batches import IGNORED
from training import distributed


@contextmanager
def products_in(model, precision):
    """In its context the model's matrix products are in a precision: fp32, bf16, or on CUDA tf32.

    fp32 stands for that of the weights.
    """
    cuda = torch.backends.cuda.matmul
    before = model.compute_dtype, cuda.allow_tf32
    model.compute_dtype = torch.bfloat16 if precision == "bf16" else None
    cuda.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        model.compute_dtype, cuda.allow_tf32 = before


def nll(model, batch, reduction="mean"):
    """Negative log-likelihood of a batch's targets in nats, their mean or their "sum": a scalar.

    A target is a sub-pixel or a sample; a dimension, in the papers' words.
    """
    logits = model(batch.codes, batch.label).movedim(1, -1)
    # As they lie in memory: a softmax over values side by side, and nothing is copied for it.
    order = sorted(range(batch.targets.ndim), key=logits.stride, reverse=True)
    return F.cross_entropy(logits.permute(*order, -1).flatten(0, -2),
                           batch.targets.permute(order).flatten(), ignore_index=IGNORED,
                           reduction=reduction)


def count_targets(batch):
    """How many of a batch's targets are real."""
    return int((batch.targets != IGNORED).sum())


def evaluate(model, batches, device):
    """Mean negative log-likelihood over all the targets of `batches`, in nats: a float.

    With several processes, each gives its share of the batches, and all get the same mean. In the
    precision of the weights, whatever the training's is.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    targets = 0
    with torch.inference_mode(), products_in(model, "fp32"):
        for batch in batches:
            total += nll(model, batch.to(device), "sum").double()
            targets += count_targets(batch)
    model.train()
    total, targets = distributed.totals(total.item(), targets)
    return total / targets


def in_units(mean_nll, prefix, dimensions=None):
    """`mean_nll` as the log tells it: {prefix/nll, prefix/bits/dim} and, of images, prefix/nats.

    dimensions: C·H·W of an image, for the nats of a whole image; None for sound.
    """
    report = {f"{prefix}/nll": mean_nll, f"{prefix}/bits/dim": mean_nll / math.log(2)}
    if dimensions:
        report[f"{prefix}/nats"] = mean_nll * dimensions
    return report
