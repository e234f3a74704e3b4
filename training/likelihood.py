"""The one loss of both networks, and the units it is told in."""

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from datasets.batches import IGNORED
from training import distributed
from training.device import tf32


@contextmanager
def matmul_precision(model, precision):
    """In its context the model's matrix products are in a precision: fp32, bf16, or on CUDA tf32.

    fp32 stands for that of the weights. A convolution is a matrix product, too.
    """
    before, model.compute_dtype = (model.compute_dtype,
                                   torch.bfloat16 if precision == "bf16" else None)
    try:
        with tf32(precision == "tf32"):
            yield
    finally:
        model.compute_dtype = before


def nll(model, batch, reduction="mean"):
    """Negative log-likelihood of a batch's targets in nats.

    reduction: "mean" of the targets, their "sum", or the sums of "each" item, (B,). A target is a
    sub-pixel or a sample; a dimension, in the papers' words.
    """
    conditions = [batch.label] + [batch.frames] * (batch.frames is not None)
    logits = model(batch.codes, *conditions).movedim(1, -1)
    # As they lie in memory: a softmax over values side by side, and nothing is copied for it.
    order = sorted(range(batch.targets.ndim), key=logits.stride, reverse=True)
    targets = batch.targets.permute(order)
    losses = F.cross_entropy(logits.permute(*order, -1).flatten(0, -2), targets.flatten(),
                             ignore_index=IGNORED,
                             reduction="none" if reduction == "each" else reduction)
    if reduction == "each":
        others = [n for n, dimension in enumerate(order) if dimension != 0]
        return losses.view(targets.shape).sum(others)
    return losses


def count_each(batch):
    """How many targets of each of a batch's items are real: (B,)."""
    return (batch.targets != IGNORED).flatten(1).sum(1)


def count_targets(batch):
    """How many of a batch's targets are real."""
    return int(count_each(batch).sum())


def evaluate(model, batches, device):
    """Mean negative log-likelihood over all the targets of `batches`, in nats: a float.

    With several processes, each gives its share of the batches, and all get the same mean. In the
    precision of the weights, whatever the training's is.
    """
    return evaluate_labels(model, batches, device, 0)[0]


def evaluate_labels(model, batches, device, labels):
    """The same, and a list of the means of that many labels, None where one has no target."""
    model.eval()
    # Of nats, of targets. On the CPU: CUDA adds what has one index in an order of its own.
    sums = torch.zeros(2, max(labels, 1), dtype=torch.float64)
    with torch.inference_mode(), matmul_precision(model, "fp32"):
        for batch in batches:
            counts = count_each(batch)
            nats = nll(model, batch.to(device), "each").cpu()
            label = batch.label if labels else torch.zeros_like(counts)
            sums.index_add_(1, label, torch.stack((nats.double(), counts.double())))
    model.train()
    sums = distributed.all_reduce_sum(*sums.flatten().tolist())
    nats, targets = sums[:len(sums) // 2], sums[len(sums) // 2:]
    means = [total / count if count else None for total, count in zip(nats, targets, strict=True)]
    return sum(nats) / sum(targets), means[:labels]


def in_units(mean_nll, prefix, dimensions=None):
    """`mean_nll` as the log tells it: {prefix/nll, prefix/bits/dim} and, of images, prefix/nats.

    dimensions: C·H·W of an image, for the nats of a whole image; None for sound.
    """
    report = {f"{prefix}/nll": mean_nll, f"{prefix}/bits/dim": mean_nll / math.log(2)}
    if dimensions:
        report[f"{prefix}/nats"] = mean_nll * dimensions
    return report
