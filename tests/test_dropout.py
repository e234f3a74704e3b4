"""Dropout masks: the fraction of dropped features, and the scale of the others."""

import pytest
import torch

from models.dropout import dropout_mask


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1001, 333), (7, 11, 13, 301)])
def test_a_mask_drops_the_right_fraction_and_preserves_the_mean(dropout, shape):
    torch.manual_seed(1)
    mask = dropout_mask(torch.empty(shape), dropout)
    assert mask.shape == shape
    kept = mask > 0
    count = mask.numel()
    assert kept.double().mean().item() == pytest.approx(
        1 - dropout, abs=4 * (dropout * (1 - dropout) / count) ** 0.5)
    assert mask[kept].unique().tolist() == pytest.approx([1 / (1 - dropout)], rel=1e-4)
    assert mask[~kept].unique().tolist() == [0]


def test_features_are_dropped_independently():
    """Four features share a 64-bit random number, and all come from one generator."""
    torch.manual_seed(1)
    dropped = (dropout_mask(torch.empty(1 << 20), 0.2) == 0).double() - 0.2
    for lag in (1, 2, 3, 4, 5, 8, 48, 624, 2496):
        correlation = (dropped[lag:] * dropped[:-lag]).mean().item() / (0.2 * 0.8)
        assert abs(correlation) < 4 / 1000


def test_a_seed_reproduces_its_masks_and_consecutive_masks_differ():
    x = torch.empty(50, 5, dtype=torch.bfloat16)

    def masks():
        torch.manual_seed(3)
        return dropout_mask(x, 0.3), dropout_mask(x, 0.3)

    (first, second), (again, _) = masks(), masks()
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dropout, dropped", [(1e-7, 0), (1 - 1e-7, 1)])
def test_extreme_probabilities(dropout, dropped):
    torch.manual_seed(1)
    mask = dropout_mask(torch.empty(300), dropout)
    assert torch.isfinite(mask).all()
    assert (mask == 0).double().mean().item() == dropped


def test_an_empty_mask():
    assert dropout_mask(torch.empty(0, 4), 0.5).shape == (0, 4)
