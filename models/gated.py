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


class _Gate(torch.autograd.Function):
    """tanh(a) σ(b) of the two halves a, b of x's last dimension.

    tanh(a) is computed as 2 σ(2a) - 1, since torch's σ is five times as fast as its tanh on a CPU;
    in single precision at the least, lest a small a be lost beside 1. Keeps tanh(a) and σ(b), which
    are all that the backward pass needs: it has no transcendental function, and writes the
    gradient's halves to where they belong.
    """

    @staticmethod
    def forward(ctx, x):
        p, precise = x.shape[-1] // 2, torch.promote_types(x.dtype, torch.float32)
        scale = torch.tensor([2.0, 1.0], dtype=precise, device=x.device).repeat_interleave(p)
        kept = (x * scale).sigmoid_()
        kept[..., :p].mul_(2).sub_(1)
        kept = kept.to(x.dtype)
        tanh, sigma = kept.chunk(2, -1)
        ctx.save_for_backward(kept)
        return tanh * sigma

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        kept, = ctx.saved_tensors
        grad_x = torch.empty_like(kept)
        (tanh, sigma), (grad_a, grad_b) = kept.chunk(2, -1), grad_x.chunk(2, -1)
        torch.mul(grad, sigma, out=grad_a)
        torch.mul(grad_a, tanh, out=grad_b)
        torch.addcmul(grad_a, grad_b, tanh, value=-1, out=grad_a)  # dy σ (1 - tanh²)
        torch.addcmul(grad_b, grad_b, sigma, value=-1, out=grad_b)  # dy tanh σ (1 - σ)
        return grad_x


def gate(x):
    """tanh of the first half of x's last dimension, times the logistic function of the second.

    x: (…, 2p) -> (…, p).
    """
    return _Gate.apply(x)


class GatedActivation(nn.Module):
    """y = tanh(x_f + V_f h) ⊙ σ(x_g + V_g h), where h, if any, is a label.

    h being one-hot, [V_f; V_g] h is a column of a matrix: an embedding of 2p numbers a label.

    Args:
        channels: p, the width of y.
        labels: how many labels there are to condition on; 0 for none.
    """

    def __init__(self, channels, labels):
        super().__init__()
        self.condition = nn.Embedding(labels, 2 * channels) if labels else None
        if labels:
            nn.init.normal_(self.condition.weight, std=0.5)

    def forward(self, x, label=None):
        """x: (B, …, 2p), label: (B,); or both without a label -> x's shape with p for 2p."""
        if self.condition is not None:
            h = self.condition(label).to(x.dtype)
            x = x + h.view(len(h), *(1,) * (x.ndim - 2), h.shape[-1])
        return gate(x)
