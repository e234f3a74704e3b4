"""The gated activation unit that Gated PixelCNN and WaveNet share.

Both papers replace the ReLU of their predecessor by

    y = tanh(W_f * x + V_f h) ⊙ σ(W_g * x + V_g h)

with a conditioning vector h, such as the embedding of a class or a speaker: equations 2 and 4 of
[1], equation 2 and section 2.5 of [2]. One convolution computes both halves W_f * x and W_g * x.
It stays outside of this module because it differs between the networks: masked and two-dimensional
in PixelCNN, dilated and one-dimensional in WaveNet.

[1] van den Oord et al., Conditional Image Generation with PixelCNN Decoders, arXiv 1606.05328.
[2] van den Oord et al., WaveNet: A Generative Model for Raw Audio, arXiv 1609.03499.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 18  # elements per thread and chunk: 1 MB of floats fits a core's cache


def gate_scale(x: torch.Tensor) -> torch.Tensor:
    """The factors (2p,) that turn features (a, b) in x's last dimension into (2a, b)."""
    scale = x.new_ones(x.shape[-1])  # on x's device: a copy to a GPU would wait
    scale[:x.shape[-1] // 2] = 2
    return scale


def gate_forward_(x: torch.Tensor, y: torch.Tensor) -> None:
    """Replace x = (2a, b) by (tanh(a), σ(b)), and write y = tanh(a) σ(b).

    Computes tanh(a) as 2 σ(2a) - 1, because torch's σ is five times as fast as its tanh on a CPU.
    Uses at least single precision, because a small a would vanish beside 1 in half precision.

    x: (…, 2p). y: (…, p).
    """
    p = y.shape[-1]
    precise = x if x.dtype.itemsize >= 4 else x.float()
    precise.sigmoid_()[..., :p].mul_(2).sub_(1)
    if precise is not x:
        x.copy_(precise)
    torch.mul(x[..., :p], x[..., p:], out=y)


def gate_backward(activated: torch.Tensor, grad: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Write the gradient of (a, b) to `out`. Needs no transcendental function.

    activated: (…, 2p), (tanh(a), σ(b)) as `gate_forward_` leaves it. grad: (…, p), the gradient of
    y. out: (…, 2p).
    """
    (tanh, sigma), (grad_a, grad_b) = activated.chunk(2, -1), out.chunk(2, -1)
    torch.mul(grad, sigma, out=grad_a)
    torch.mul(grad_a, tanh, out=grad_b)
    torch.addcmul(grad_a, grad_b, tanh, value=-1, out=grad_a)  # dy σ (1 - tanh²)
    torch.addcmul(grad_b, grad_b, sigma, value=-1, out=grad_b)  # dy tanh σ (1 - σ)
    return out


def gate(*parts: torch.Tensor, pad_top: int = 0) -> torch.Tensor:
    """tanh of the first half of the last dimension times σ of the second half.

    Args:
        parts: the terms of the gate's input. The first is (B, …, 2p); the others broadcast to it in
            all dimensions but the batch.
        pad_top: rows of zeros to put before the result, in the second dimension.

    Returns (B, …, p).
    """
    return _Gate.apply(pad_top, *parts)


class _Gate(torch.autograd.Function):
    """Processes a few examples at a time, so that they stay in the processor's cache."""

    @staticmethod
    def forward(ctx, pad_top, x, *others):
        activated, scale = torch.empty(x.shape, dtype=x.dtype, device=x.device), gate_scale(x)
        batch, *inner, width = x.shape
        if pad_top:
            inner[0] += pad_top
        y = x.new_empty(batch, *inner, width // 2)
        y[:, :pad_top] = 0
        for chunk in _batch_chunks(x):
            total = torch.mul(x[chunk], scale, out=activated[chunk])
            for other in others:
                total.addcmul_(other[chunk], scale)
            gate_forward_(total, y[chunk, pad_top:])
        ctx.save_for_backward(activated)
        ctx.pad_top, ctx.shapes = pad_top, [part.shape for part in (x, *others)]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        activated, = ctx.saved_tensors
        grad_x = torch.empty_like(activated)
        for chunk in _batch_chunks(activated):
            gate_backward(activated[chunk], grad[chunk, ctx.pad_top:], grad_x[chunk])
        return None, *(grad_x.sum_to_size(shape) for shape in ctx.shapes)


def _batch_chunks(x: torch.Tensor) -> list[slice]:
    """Slices of the first dimension that a CPU processes one after the other."""
    on_cpu = x.device.type == "cpu"
    elements = CHUNK_ELEMENTS * torch.get_num_threads() if on_cpu else x.numel()
    count = max(elements // max(x[:1].numel(), 1), 1)
    return [slice(i, i + count) for i in range(0, len(x), count)]


class GatedActivation(nn.Module):
    """y = tanh(x_f + V_f h) ⊙ σ(x_g + V_g h), where h is a label, a vector, or absent.

    A label is a one-hot h. Then [V_f; V_g] h is a column of a matrix: an embedding of size 2p.

    Args:
        channels: p, the width of y.
        labels: number of labels to condition on; 0 for none.
        vector: width of the vectors to condition on if there are no labels; 0 for none.
    """

    condition: nn.Embedding | nn.Linear | None

    def __init__(self, channels: int, labels: int, vector: int = 0) -> None:
        super().__init__()
        self.condition = None
        if labels:
            self.condition = nn.Embedding(labels, 2 * channels)
        elif vector:
            self.condition = nn.Linear(vector, 2 * channels, bias=False)
        if self.condition is not None:
            # A vector of unit variance then contributes as much as a label.
            nn.init.normal_(self.condition.weight, std=0.5 / max(vector, 1) ** 0.5)

    def forward(self, *parts: torch.Tensor, label: torch.Tensor | None = None,
                pad_top: int = 0) -> torch.Tensor:
        """Gate the sum of `parts` and the condition.

        Args:
            parts: the terms of x, (B, …, 2p) each.
            label: labels (B,), or vectors (B, vector), or None for a network without either.
            pad_top: rows of zeros to put before the result, in the second dimension.

        Returns (B, …, p).
        """
        if self.condition is not None:
            h = self.condition(label).to(parts[0].dtype)
            parts = *parts, h.view(len(h), *(1,) * (parts[0].ndim - 2), h.shape[-1])
        return gate(*parts, pad_top=pad_top)
