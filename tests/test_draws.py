"""Streams of random numbers that don't know of one another, and the code that one picks."""

import pytest
import torch

from sampling.draws import BLOCK, Draws, choose


def test_a_stream_depends_on_seed_and_number_alone():
    alone = torch.cat([Draws(7, [3]).next(5)[0], Draws(7, [3]).next(5)[0]])
    assert torch.equal(alone[:5], alone[5:])
    together = Draws(7, range(5)).next(5)
    assert torch.equal(together[3], alone[:5])
    assert together.unique().numel() == 25
    assert not torch.equal(Draws(8, [3]).next(5)[0], alone[:5])
    assert 0 <= together.min() and together.max() < 1 and together.dtype == torch.float64


def test_numbers_come_in_order_however_many_are_asked_for():
    whole = Draws(0, [0, 1]).next(3 * BLOCK)
    draws = Draws(0, [0, 1])
    parts = [draws.next(n) for n in (1, BLOCK - 2, 3, 0, BLOCK, BLOCK - 2)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_distribution(temperature):
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0]])
    uniforms = Draws(0, [0]).next(40_000)[0]
    codes = choose(logits.expand(len(uniforms), -1), uniforms, temperature)
    frequencies = codes.bincount(minlength=4) / len(uniforms)
    assert torch.allclose(frequencies, (logits[0] / temperature).softmax(0), atol=0.01)


def test_edges():
    inf = float("inf")
    logits = torch.tensor([[-inf, 0.0, -inf, 1.0, -inf]])
    almost = 1 - 2 ** -53
    assert choose(logits, torch.tensor([0.0], dtype=torch.float64)).item() == 1
    assert choose(logits, torch.tensor([almost], dtype=torch.float64)).item() == 3
    uniforms = torch.full((200,), almost, dtype=torch.float64)
    assert choose(torch.randn(200, 65536), uniforms).max() < 65536
    # A temperature close to 0 is that of 0, for logits however large.
    logits = torch.tensor([[3e30, 5e30, -1e30]])
    for temperature in (0, 1e-300, 5e-324):
        code = choose(logits, torch.tensor([almost], dtype=torch.float64), temperature)
        assert code.item() == 1
