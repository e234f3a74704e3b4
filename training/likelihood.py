"""The loss of both networks, and the units in which it is reported."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from datasets.batches import IGNORED, Batch
from models import distributions
from training import distributed
from training.device import tf32


@contextmanager
def matmul_precision(model, precision: str) -> Iterator[None]:
    """In its context the model computes matrix products in fp32, bf16, or on CUDA tf32.

    fp32 means the precision of the weights. Convolutions count as matrix products.

    model: a PixelCNN or a WaveNet, or another module with a `compute_dtype`.
    """
    before = model.compute_dtype
    model.compute_dtype = torch.bfloat16 if precision == "bf16" else None
    try:
        with tf32(precision == "tf32"):
            yield
    finally:
        model.compute_dtype = before


def nll(model: torch.nn.Module, batch: Batch, reduction: str = "mean") -> torch.Tensor:
    """Return the negative log-likelihood of a batch's targets in nats.

    A target is a sub-pixel or a sample: a dimension, in the papers' words.

    reduction: "mean" over the targets, their "sum", or the sums of "each" item, (B,).
    """
    if batch.frames is None:
        parameters = model(batch.codes, batch.label)
    else:
        parameters = model(batch.codes, batch.label, batch.frames)
    # DistributedDataParallel has the network as its `module`. Anything else gives logits.
    distribution = getattr(getattr(model, "module", model), "distribution", None)
    distribution = distribution or distributions.Softmax(parameters.shape[1])
    losses = distributions.nll(distribution, parameters, batch.targets,
                               "none" if reduction == "each" else reduction)
    return losses.flatten(1).sum(1) if reduction == "each" else losses


def count_each(batch: Batch) -> torch.Tensor:
    """Return how many targets each of a batch's items has: (B,)."""
    return (batch.targets != IGNORED).flatten(1).sum(1)


def count_targets(batch: Batch) -> int:
    """Return how many targets a batch has."""
    return int(count_each(batch).sum())


def evaluate(model, batches: Iterable[Batch], device: torch.device) -> float:
    """Return the mean negative log-likelihood over all targets of `batches`, in nats.

    Computes in the precision of the weights, whatever training's precision is. With several
    processes each passes its share of the batches, and all get the same mean.
    """
    return evaluate_labels(model, batches, device, 0)[0]


def evaluate_labels(model, batches: Iterable[Batch], device: torch.device,
                    labels: int) -> tuple[float, list[float | None]]:
    """`evaluate`, and the mean of each of so many labels, None for one without targets."""
    model.eval()
    # Row 0: nats, row 1: targets. On the CPU, because CUDA's index_add_ has no fixed order.
    sums = torch.zeros(2, max(labels, 1), dtype=torch.float64)
    with torch.inference_mode(), matmul_precision(model, "fp32"):
        for batch in batches:
            counts = count_each(batch)
            nats = nll(model, batch.to(device), "each").cpu()
            label = batch.label
            if label is None or not labels:
                label = torch.zeros_like(counts)
            sums.index_add_(1, label, torch.stack((nats.double(), counts.double())))
    model.train()
    totals = distributed.all_reduce_sum(*sums.flatten().tolist())
    total_nats, total_targets = totals[:len(totals) // 2], totals[len(totals) // 2:]
    means = [nats / count if count else None
             for nats, count in zip(total_nats, total_targets, strict=True)]
    return sum(total_nats) / sum(total_targets), means[:labels]


def in_units(mean_nll: float, prefix: str, dimensions: int | None = None) -> dict[str, float]:
    """Return `mean_nll` in the log's units: {prefix/nll, prefix/bits/dim}, for images prefix/nats.

    dimensions: C·H·W of an image, for the nats of a whole image; None for sound.
    """
    report = {f"{prefix}/nll": mean_nll, f"{prefix}/bits/dim": mean_nll / math.log(2)}
    if dimensions:
        report[f"{prefix}/nats"] = mean_nll * dimensions
    return report
