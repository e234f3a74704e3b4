"""Streams of random numbers that don't know of one another, and the code that one picks."""

import pytest
import torch

from sampling.random_streams import BLOCK, Draws, choose


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


@pytest.mark.parametrize("odds,top_p,kept", [
    ([8, 4, 2, 1, 1], 0.5, {0}), ([8, 4, 2, 1, 1], 0.51, {0, 1}), ([1, 8, 4, 2, 1], 0.75, {1, 2}),
    ([1, 4, 2, 8, 1], 0.76, {1, 2, 3}), ([1, 4, 2, 8, 1], 0.88, {0, 1, 2, 3, 4}),
    ([1, 4, 2, 8, 1], 1.0, {0, 1, 2, 3, 4}), ([8, 4, 2, 1, 1], 1e-6, {0}),
    ([4, 1, 4, 1, 4], 1e-6, {0, 2, 4}), ([4, 1, 4, 1, 4], 5e-324, {0, 2, 4}), ([1, 1], 0.5, {0, 1}),
    ([0, 3, 0, 1], 0.999, {1, 3}), ([2] * 7 + [1] * 100, 0.1, set(range(7)))])
def test_top_p_draws_among_the_most_probable(odds, top_p, kept):
    """As few as together have that probability, and those as probable as the last of them; in
    the proportions that they had."""
    odds, count = torch.tensor(odds, dtype=torch.float64), 20_000
    uniforms = Draws(0, [0]).next(count)[0]
    codes = choose(odds.log().expand(count, -1), uniforms, top_p=top_p)
    assert set(codes.tolist()) == kept
    expected = torch.where(torch.tensor([code in kept for code in range(len(odds))]), odds, 0)
    frequencies = codes.bincount(minlength=len(odds)) / count
    assert torch.allclose(frequencies, (expected / expected.sum()).float(), atol=0.01)


def test_top_p_is_of_the_distribution_at_that_temperature():
    logits = torch.tensor([8.0, 4, 2, 1, 1]).log().expand(1000, -1)
    uniforms = Draws(0, [0]).next(1000)[0]
    for temperature, kept in ((0.5, {0}), (1, {0, 1}), (1e6, {0, 1, 2, 3, 4})):
        codes = choose(logits, uniforms, temperature, top_p=0.7)
        assert set(codes.tolist()) == kept
    assert (choose(logits, uniforms, 0, top_p=0.7) == 0).all()


@pytest.mark.parametrize("top_p", [5e-324, 0.3, 0.9, 1 - 2 ** -53, 1.0])
def test_top_p_of_each_row_is_its_own(top_p):
    """However the rows differ, together they are what they are alone; and edges stay in range."""
    torch.manual_seed(0)
    logits = torch.randn(200, 300) * torch.logspace(-3, 3, 200)[:, None]
    logits[::5, ::2] = -float("inf")
    logits[1::5] = 0
    uniforms = Draws(0, [0]).next(200)[0]
    uniforms[:50], uniforms[50:100] = 0, 1 - 2 ** -53
    for temperature in (5e-324, 1.0, 1e9):
        codes = choose(logits, uniforms, temperature, top_p)
        alone = [choose(row[None], uniform[None], temperature, top_p).item()
                 for row, uniform in zip(logits, uniforms, strict=True)]
        assert codes.tolist() == alone
        assert codes.min() >= 0 and codes.max() < 300
        assert (logits.gather(1, codes[:, None]) > -float("inf")).all()
