"""The gate against its definition and finite differences; the label's effect on both halves."""

import math

import pytest
import torch

from models import gated
from models.gated import GatedActivation, gate

# Everything is in double precision, so that a wrong term can't hide behind rounding.
SHAPES = [(2, 3, 4, 6), (3, 2, 6), (1, 2), (2, 1, 1, 2)]
LAYOUTS = {  # how a tensor lies in memory: (shape of the base tensor, view of the base)
    "contiguous": (lambda shape: shape, lambda x: x),
    "transposed": (lambda shape: shape[::-1], lambda x: x.permute(*range(x.ndim)[::-1])),
    "every second": (lambda shape: (*shape[:-1], 2 * shape[-1]), lambda x: x[..., ::2]),
    "expanded": (lambda shape: (1, *shape[1:]), lambda x: x.expand(3, *x.shape[1:])),
}


def random_tensor(layout, shape):
    """Random numbers of that shape; "expanded" repeats its first element three times."""
    base, view = LAYOUTS[layout]
    return view(torch.randn(base(shape), dtype=torch.double))


def halves(x):
    """The two halves of x's last dimension."""
    p = x.shape[-1] // 2
    return x[..., :p], x[..., p:]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gate_is_tanh_of_first_half_times_sigmoid_of_second(shape, layout):
    torch.manual_seed(0)
    x = random_tensor(layout, shape)
    before = x.clone()
    a, b = halves(x)
    torch.testing.assert_close(gate(x), a.tanh() * b.sigmoid(), rtol=1e-13, atol=1e-15)
    assert torch.equal(x, before), "the gate must not write into its input"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_equals_finite_differences(shape, layout):
    torch.manual_seed(0)
    base, view = LAYOUTS[layout]
    x = torch.randn(base(shape), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gate(view(x)), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_right_for_a_non_contiguous_output_gradient(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    a, b = halves(x)
    out = (*shape[:-1], shape[-1] // 2)
    for grad in (random_tensor("transposed", out), random_tensor("every second", out),
                 torch.ones((), dtype=torch.double).expand(out)):
        expected, = torch.autograd.grad(a.tanh() * b.sigmoid(), x, grad, retain_graph=True)
        actual, = torch.autograd.grad(gate(x), x, grad)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)


def test_gate_saturates_and_stays_finite_for_huge_inputs():
    x = torch.tensor([[1e4, -1e4, 1e4, 3.0, 1e4, 1e4, -1e4, 0.0]], requires_grad=True)
    y = gate(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor([[1, -1, 0, math.tanh(3) / 2]]))
    assert x.grad.isfinite().all()
    assert (x.grad[0, [0, 1, 2]] == 0).all()
    assert x.grad[0, 7] != 0


@pytest.mark.parametrize("elements", [1, 60, 1 << 18])  # one, three and all examples per chunk
@pytest.mark.parametrize("pad_top", [0, 2])
def test_parts_are_summed_and_zero_rows_prepended_for_any_chunk_size(
        pad_top, elements, monkeypatch):
    monkeypatch.setattr(gated, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    torch.manual_seed(0)
    parts = [torch.randn(7, *shape, 4, dtype=torch.double, requires_grad=True)
             for shape in ((2, 3), (2, 3), (1, 1))]
    y = gate(*parts, pad_top=pad_top)
    assert y.shape == (7, pad_top + 2, 3, 2)
    assert (y[:, :pad_top] == 0).all()
    a, b = halves(sum(parts))
    torch.testing.assert_close(y[:, pad_top:], a.tanh() * b.sigmoid(), rtol=1e-13, atol=1e-15)
    assert torch.autograd.gradcheck(lambda *parts: gate(*parts, pad_top=pad_top), parts)


@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-3), (torch.bfloat16, 0.02)])
def test_small_inputs_survive_rounding(dtype, error):
    """In bfloat16, 2 σ(2a) - 1 would be 0 for all |a| < 0.002, and coarse far beyond."""
    a = torch.logspace(-4, 0, 200).to(dtype)
    x = torch.stack((a, torch.zeros_like(a)), dim=1).requires_grad_()
    y = gate(x)
    wanted = a.double().tanh() / 2
    assert y.dtype == dtype
    assert ((y[:, 0].double() - wanted) / wanted).abs().max() < error
    slope, = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope[:, 0].double(), (1 - (2 * wanted) ** 2) / 2, rtol=0,
                               atol=error)


@pytest.mark.parametrize("shape", [(3, 2, 5, 8), (3, 4, 8), (3, 8)])
def test_label_is_added_to_both_halves_at_every_position(shape):
    torch.manual_seed(0)
    block = GatedActivation(4, labels=5).double()
    x, label = torch.randn(shape, dtype=torch.double), torch.tensor([4, 0, 4])
    a, b = halves(x)
    v_f, v_g = block.condition.weight.split(4, dim=1)
    view = (3, *(1,) * (len(shape) - 2), 4)
    expected = ((a + v_f[label].reshape(view)).tanh()
                * (b + v_g[label].reshape(view)).sigmoid())
    torch.testing.assert_close(block(x, label=label), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(3, 2, 5, 8), (3, 4, 8), (3, 8)])
def test_only_labels_in_the_batch_get_a_gradient_and_get_it_everywhere(shape):
    torch.manual_seed(0)
    block = GatedActivation(4, labels=3).double()
    y = block(torch.randn(shape, dtype=torch.double), label=torch.tensor([2, 0, 0]))
    (y * torch.randn_like(y)).sum().backward()
    grad = block.condition.weight.grad
    assert (grad[[0, 2]] != 0).all()
    assert (grad[1] == 0).all()


def test_each_example_is_gated_with_its_own_label():
    torch.manual_seed(0)
    block = GatedActivation(4, labels=3).double()
    x = torch.randn(3, 3, 8, dtype=torch.double)  # as many times as examples: easy to mix up
    labels = torch.tensor([2, 0, 1])
    together = block(x, label=labels)
    for i in range(3):
        torch.testing.assert_close(
            together[i:i + 1], block(x[i:i + 1], label=labels[i:i + 1]), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(3, 2, 5, 8), (3, 4, 8), (3, 8)])
def test_without_labels_the_block_is_the_bare_gate_and_has_no_parameters(shape):
    torch.manual_seed(0)
    block, x = GatedActivation(4, labels=0), torch.randn(shape)
    assert list(block.parameters()) == []
    assert torch.equal(block(x), gate(x))


def test_initial_embeddings_differ_and_are_small_compared_with_the_convolution():
    torch.manual_seed(0)
    weight = GatedActivation(64, labels=20).condition.weight
    assert 0.05 < weight.std() < 0.5
    assert len(weight.unique(dim=0)) == 20
