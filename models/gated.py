"""The gated activation block that Gated PixelCNN and WaveNet share.

Both papers replace the ReLU of their predecessor by

    y = tanh(W_f * x + V_f h) ⊙ σ(W_g * x + V_g h)

with h a conditioning vector such as the embedding of a class or a speaker: equations 2 and 4 of
[1], equation 2 and section 2.5 of [2]. One convolution makes both halves W_f * x and W_g * x. It
lies outside of the block, since it differs between the networks: masked in two dimensions there,
dilated in one here.

[1] van den Oord et al., Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328.
[2] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

PIECE = 1 << 18  # numbers that a thread of a CPU takes through a gate at a time: its core's cache


def doubled(x):
    """What the features (a, b) in x's last dimension are to be multiplied by to be (2a, b)."""
    scale = x.new_ones(x.shape[-1])  # on its device: a copy to a GPU would be waited for
    scale[:x.shape[-1] // 2] = 2
    return scale


def activate_(x, y):
    """Make tanh(a) and σ(b) in the place of x = (2a, b), and y = tanh(a) σ(b) of what is there.

    tanh(a) is 2 σ(2a) - 1, since torch's σ is five times as fast as its tanh on a CPU; in single
    precision at the least, lest a small a be lost beside 1. x: (…, 2p), y: (…, p).
    """
    p = y.shape[-1]
    precise = x if x.dtype.itemsize >= 4 else x.float()
    precise.sigmoid_()[..., :p].mul_(2).sub_(1)
    if precise is not x:
        x.copy_(precise)
    torch.mul(x[..., :p], x[..., p:], out=y)


def derivative(activated, grad, out):
    """The gradient of (a, b), written to out (…, 2p), given y's (…, p) and what `activate_` left.

    It takes no transcendental function.
    """
    (tanh, sigma), (grad_a, grad_b) = activated.chunk(2, -1), out.chunk(2, -1)
    torch.mul(grad, sigma, out=grad_a)
    torch.mul(grad_a, tanh, out=grad_b)
    torch.addcmul(grad_a, grad_b, tanh, value=-1, out=grad_a)  # dy σ (1 - tanh²)
    torch.addcmul(grad_b, grad_b, sigma, value=-1, out=grad_b)  # dy tanh σ (1 - σ)
    return out


def gate(*parts, rows_above=0):
    """tanh of the first half of the last dimension, times the logistic function of the second.

    parts: what is to be summed first: x (B, …, 2p), and others that broadcast to it but for B.
    rows_above: rows of zeros, in the second dimension, to put before the result -> (B, …, p).
    """
    return _Gate.apply(rows_above, *parts)


class _Gate(torch.autograd.Function):
    """A few examples at a time, that what passes over them find them in the processor's cache."""

    @staticmethod
    def forward(ctx, rows_above, x, *others):
        activated, scale = torch.empty(x.shape, dtype=x.dtype, device=x.device), doubled(x)
        batch, *between, width = x.shape
        if rows_above:
            between[0] += rows_above
        y = x.new_empty(batch, *between, width // 2)
        y[:, :rows_above] = 0
        for few in _pieces(x):
            total = torch.mul(x[few], scale, out=activated[few])
            for other in others:
                total.addcmul_(other[few], scale)
            activate_(total, y[few, rows_above:])
        ctx.save_for_backward(activated)
        ctx.rows_above, ctx.shapes = rows_above, [part.shape for part in (x, *others)]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        activated, = ctx.saved_tensors
        grad_x = torch.empty_like(activated)
        for few in _pieces(activated):
            derivative(activated[few], grad[few, ctx.rows_above:], grad_x[few])
        return None, *(grad_x.sum_to_size(shape) for shape in ctx.shapes)


def _pieces(x):
    """Slices of the first dimension."""
    numbers = PIECE * torch.get_num_threads() if x.device.type == "cpu" else x.numel()
    count = max(numbers // max(x[:1].numel(), 1), 1)
    return [slice(i, i + count) for i in range(0, len(x), count)]


class GatedActivation(nn.Module):
    """y = tanh(x_f + V_f h) ⊙ σ(x_g + V_g h), where h, if any, is a label or a vector.

    Of a label h is one-hot, and [V_f; V_g] h a column of a matrix: an embedding of 2p numbers.

    Args:
        channels: p, the width of y.
        labels: how many labels there are to condition on; 0 for none.
        vector: the width of the vectors to condition on, where there are no labels; 0 for none.
    """

    def __init__(self, channels, labels, vector=0):
        super().__init__()
        self.condition = None
        if labels:
            self.condition = nn.Embedding(labels, 2 * channels)
        elif vector:
            self.condition = nn.Linear(vector, 2 * channels, bias=False)
        if self.condition is not None:
            # Of a vector whose numbers vary by 1 as much as of a label.
            nn.init.normal_(self.condition.weight, std=0.5 / max(vector, 1) ** 0.5)

    def forward(self, *parts, label=None, rows_above=0):
        """parts: (B, …, 2p) each, of which x is the sum; label: (B,), or the vectors (B, vector),
        or None without either.

        rows_above: as of `gate` -> (B, …, p).
        """
        if self.condition is not None:
            h = self.condition(label).to(parts[0].dtype)
            parts = *parts, h.view(len(h), *(1,) * (parts[0].ndim - 2), h.shape[-1])
        return gate(*parts, rows_above=rows_above)
