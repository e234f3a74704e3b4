"""Independent streams of random numbers, and the codes that they select."""

import pytest
import torch

from models.distributions.softmax import sample_categorical
from sampling.random_streams import REFILL, RandomStreams


def test_a_stream_depends_only_on_its_seed_and_number():
    alone = torch.cat([RandomStreams(7, [3]).next_uniforms(5)[0], RandomStreams(7,
                                                                                [3]).next_uniforms(5)[0]])
    assert torch.equal(alone[:5], alone[5:])
    together = RandomStreams(7, range(5)).next_uniforms(5)
    assert torch.equal(together[3], alone[:5])
    assert together.unique().numel() == 25
    assert not torch.equal(RandomStreams(8, [3]).next_uniforms(5)[0], alone[:5])
    assert 0 <= together.min() and together.max() < 1 and together.dtype == torch.float64


def test_numbers_come_in_order_in_portions_of_any_size():
    whole = RandomStreams(0, [0, 1]).next_uniforms(3 * REFILL)
    streams = RandomStreams(0, [0, 1])
    parts = [streams.next_uniforms(n) for n in (1, REFILL - 2, 3, 0, REFILL, REFILL - 2)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_distribution(temperature):
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0]])
    uniforms = RandomStreams(0, [0]).next_uniforms(40_000)[0]
    codes = sample_categorical(logits.expand(len(uniforms), -1), uniforms, temperature)
    frequencies = codes.bincount(minlength=4) / len(uniforms)
    assert torch.allclose(frequencies, (logits[0] / temperature).softmax(0), atol=0.01)


def test_edges():
    inf = float("inf")
    logits = torch.tensor([[-inf, 0.0, -inf, 1.0, -inf]])
    almost = 1 - 2 ** -53
    assert sample_categorical(logits, torch.tensor([0.0], dtype=torch.float64)).item() == 1
    assert sample_categorical(logits, torch.tensor([almost], dtype=torch.float64)).item() == 3
    uniforms = torch.full((200,), almost, dtype=torch.float64)
    assert sample_categorical(torch.randn(200, 65536), uniforms).max() < 65536
    # A temperature close to 0 equals 0, also for huge logits.
    logits = torch.tensor([[3e30, 5e30, -1e30]])
    for temperature in (0, 1e-300, 5e-324):
        code = sample_categorical(logits, torch.tensor([almost], dtype=torch.float64), temperature)
        assert code.item() == 1


@pytest.mark.parametrize("probs,top_p,nucleus", [
    ([8, 4, 2, 1, 1], 0.5, {0}), ([8, 4, 2, 1, 1], 0.51, {0, 1}), ([1, 8, 4, 2, 1], 0.75, {1, 2}),
    ([1, 4, 2, 8, 1], 0.76, {1, 2, 3}), ([1, 4, 2, 8, 1], 0.88, {0, 1, 2, 3, 4}),
    ([1, 4, 2, 8, 1], 1.0, {0, 1, 2, 3, 4}), ([8, 4, 2, 1, 1], 1e-6, {0}),
    ([4, 1, 4, 1, 4], 1e-6, {0, 2, 4}), ([4, 1, 4, 1, 4], 5e-324, {0, 2, 4}), ([1, 1], 0.5, {0, 1}),
    ([0, 3, 0, 1], 0.999, {1, 3}), ([2] * 7 + [1] * 100, 0.1, set(range(7)))])
def test_top_p_draws_among_the_most_probable(probs, top_p, nucleus):
    """The fewest codes that together have this probability, and those as probable as the last of
    them, keep their relative frequencies."""
    probs, count = torch.tensor(probs, dtype=torch.float64), 20_000
    uniforms = RandomStreams(0, [0]).next_uniforms(count)[0]
    codes = sample_categorical(probs.log().expand(count, -1), uniforms, top_p=top_p)
    assert set(codes.tolist()) == nucleus
    expected = torch.where(torch.tensor([code in nucleus for code in range(len(probs))]), probs, 0)
    frequencies = codes.bincount(minlength=len(probs)) / count
    assert torch.allclose(frequencies, (expected / expected.sum()).float(), atol=0.01)


def test_top_p_applies_after_the_temperature():
    logits = torch.tensor([8.0, 4, 2, 1, 1]).log().expand(1000, -1)
    uniforms = RandomStreams(0, [0]).next_uniforms(1000)[0]
    for temperature, nucleus in ((0.5, {0}), (1, {0, 1}), (1e6, {0, 1, 2, 3, 4})):
        codes = sample_categorical(logits, uniforms, temperature, top_p=0.7)
        assert set(codes.tolist()) == nucleus
    assert (sample_categorical(logits, uniforms, 0, top_p=0.7) == 0).all()


@pytest.mark.parametrize("top_p", [5e-324, 0.3, 0.9, 1 - 2 ** -53, 1.0])
def test_rows_are_sampled_independently(top_p):
    """Different rows give the same codes together and alone; extreme numbers stay in range."""
    torch.manual_seed(0)
    logits = torch.randn(200, 300) * torch.logspace(-3, 3, 200)[:, None]
    logits[::5, ::2] = -float("inf")
    logits[1::5] = 0
    uniforms = RandomStreams(0, [0]).next_uniforms(200)[0]
    uniforms[:50], uniforms[50:100] = 0, 1 - 2 ** -53
    for temperature in (5e-324, 1.0, 1e9):
        codes = sample_categorical(logits, uniforms, temperature, top_p)
        alone = [sample_categorical(row[None], uniform[None], temperature, top_p).item()
                 for row, uniform in zip(logits, uniforms, strict=True)]
        assert codes.tolist() == alone
        assert codes.min() >= 0 and codes.max() < 300
        assert (logits.gather(1, codes[:, None]) > -float("inf")).all()
