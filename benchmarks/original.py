"""The networks as the original study computes them, for `training.py` to time ours beside.

A formulation in our own words, in plain PyTorch, of what its Chainer networks compute; not its
code, and for no other use. Layers, widths and what an output may see are those of `models/`, and
a batch goes in and logits come out as there. But nothing is spared: in the WaveNet every layer
computes the whole window behind zero padding, from one-hot codes, and the outputs are cropped at
the very end; in the PixelCNN the kernels are full ones times a mask. The two halves of a gate are
left to autograd.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.convolutions import groups
from models.pixelcnn import FIRST_KERNEL, KERNEL


class OriginalWaveNet(nn.Module):
    """codes (B, T) -> logits (B, levels, T - R + 1)."""

    def __init__(self, config):
        super().__init__()
        self.config, self.compute_dtype = config, None
        p, skip = config.hidden_dim, config.out_hidden_dim
        self.first = _Causal(config.levels, p, 1)
        self.layers = nn.ModuleList(
            nn.ModuleList((_Causal(p, p, dilation), _Causal(p, p, dilation),
                           nn.Conv2d(p, p, 1), nn.Conv2d(p, skip, 1)))
            for dilation in config.dilations)
        self.hidden, self.logits = nn.Conv2d(skip, skip, 1), nn.Conv2d(skip, config.levels, 1)

    def forward(self, codes, label=None):
        x = F.one_hot(codes, self.config.levels).to(self.first.weight.dtype)
        x, skips = self.first(x.transpose(1, 2)[:, :, None]), 0
        for tanh, sigma, residual, skip in self.layers:
            y = torch.tanh(tanh(x)) * torch.sigmoid(sigma(x))
            skips = skips + skip(y)
            x = x + residual(y)
        logits = self.logits(F.relu(self.hidden(F.relu(skips))))
        return logits[:, :, 0, self.config.receptive_field - 1:]


class _Causal(nn.Conv2d):
    """A dilated convolution of width 2 over (B, in, 1, T), padded with zeros on both sides."""

    def __init__(self, inputs, outputs, dilation):
        super().__init__(inputs, outputs, (1, 2), dilation=dilation, padding=(0, dilation))

    def forward(self, x):
        return super().forward(x)[..., :x.shape[-1]]


class OriginalPixelCNN(nn.Module):
    """codes (B, C, H, W) -> logits (B, levels, C, H, W)."""

    def __init__(self, config):
        super().__init__()
        self.config, self.compute_dtype = config, None
        p, channels = config.hidden_dim, config.channels
        self.blocks = nn.ModuleList(_Block(p, channels, first=i == 0)
                                    for i in range(config.blocks_num))
        hidden = groups(config.out_hidden_dim, channels)
        self.hidden = _Masked(groups(p, channels), hidden, (1, 1))
        self.logits = _Masked(hidden, groups(channels * config.levels, channels), (1, 1))

    def forward(self, codes, label=None):
        v = h = codes.to(self.logits.weight.dtype) * (2 / (self.config.levels - 1)) - 1
        for block in self.blocks:
            v, h = block(v, h)
        logits = self.logits(F.relu(self.hidden(F.relu(h))))
        return logits.unflatten(1, (codes.shape[1], -1)).transpose(1, 2)


class _Block(nn.Module):
    """A layer of the vertical and the horizontal stack."""

    def __init__(self, p, channels, first):
        super().__init__()
        self.first, size = first, FIRST_KERNEL if first else KERNEL
        features = groups(p, channels)
        both = torch.cat((features, features))
        inputs = groups(channels, channels) if first else features
        self.vertical = _Masked(inputs, both, (size, size), first)
        self.vertical_to_horizontal = nn.Conv2d(2 * p, 2 * p, 1)
        self.horizontal = _Masked(inputs, both, (1, size), first)
        self.out = _Masked(features, features, (1, 1))

    def forward(self, v, h):
        above = self.vertical(v)
        y = self.out(_gate(self.horizontal(h) + self.vertical_to_horizontal(above)))
        return _gate(above), y if self.first else h + y


class _Masked(nn.Conv2d):
    """A full kernel times a mask, for features in the groups R, G, B.

    In both directions it sees what is before the middle. Of the middle, a kernel of several rows
    (the vertical stack's) sees the whole row, or with `first` none of it; another sees the groups
    up to its own, or with `first` those before.
    """

    def __init__(self, inputs, outputs, size, first=False):
        rows, columns = size[0] // 2, size[1] // 2
        super().__init__(len(inputs), len(outputs), size, padding=(rows, columns))
        mask = torch.zeros(self.weight.shape)
        if rows:
            mask[:, :, :rows + (not first)] = 1
        else:
            mask[..., :columns] = 1
            before = torch.gt if first else torch.ge
            mask[..., columns] = before(outputs[:, None], inputs)[..., None].float()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def _gate(x):
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)
