"""The networks as the original study computes them: the baseline that `training.py` times.

Our own PyTorch code for what its Chainer networks compute, used for timing only. Layers,
widths, receptive fields, inputs and outputs equal those of `models/`, without the optimisations: in
the WaveNet every layer computes the whole zero-padded window from one-hot codes, and only the
logits are cropped; in the PixelCNN a full kernel is multiplied by its mask. Autograd differentiates
the gates.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convolutions import groups
from models.pixelcnn import FIRST_KERNEL, KERNEL, PixelCNNConfig
from models.wavenet import WaveNetConfig


class OriginalWaveNet(nn.Module):
    """codes (B, T) -> logits (B, levels, T - R + 1)."""

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, None
        p, skip = config.hidden_dim, config.out_hidden_dim
        self.first = _CausalConv(config.levels, p, 1)
        self.layers = nn.ModuleList(_Layer(p, skip, dilation) for dilation in config.dilations)
        self.hidden, self.logits = nn.Conv2d(skip, skip, 1), nn.Conv2d(skip, config.levels, 1)

    def forward(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        x = F.one_hot(codes, self.config.levels).to(self.first.weight.dtype)
        x = self.first(x.transpose(1, 2)[:, :, None])
        skips = x.new_zeros(())
        for layer in self.layers:
            x, skip = layer(x)
            skips = skips + skip
        logits = self.logits(F.relu(self.hidden(F.relu(skips))))
        return logits[:, :, 0, self.config.receptive_field - 1:]


class _Layer(nn.Module):
    """A gated residual layer: x -> (the next layer's x, the skip output)."""

    def __init__(self, p, skip, dilation):
        super().__init__()
        self.tanh, self.sigma = _CausalConv(p, p, dilation), _CausalConv(p, p, dilation)
        self.residual, self.skip = nn.Conv2d(p, p, 1), nn.Conv2d(p, skip, 1)

    def forward(self, x):
        y = torch.tanh(self.tanh(x)) * torch.sigmoid(self.sigma(x))
        return x + self.residual(y), self.skip(y)


class _CausalConv(nn.Conv2d):
    """A dilated causal convolution of width 2 over (B, in, 1, T), zero-padded and cropped."""

    def __init__(self, inputs, outputs, dilation):
        super().__init__(inputs, outputs, (1, 2), dilation=dilation, padding=(0, dilation))

    def forward(self, x):
        return super().forward(x)[..., :x.shape[-1]]


class OriginalPixelCNN(nn.Module):
    """codes (B, C, H, W) -> logits (B, levels, C, H, W)."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, None
        p, channels = config.hidden_dim, config.channels
        self.blocks = nn.ModuleList(_Block(p, channels, first=i == 0)
                                    for i in range(config.blocks_num))
        hidden = groups(config.out_hidden_dim, channels)
        self.hidden = _MaskedConv(groups(p, channels), hidden, (1, 1))
        self.logits = _MaskedConv(hidden, groups(channels * config.levels, channels), (1, 1))

    def forward(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        v = h = codes.to(self.logits.weight.dtype) * (2 / (self.config.levels - 1)) - 1
        for block in self.blocks:
            v, h = block(v, h)
        logits = self.logits(F.relu(self.hidden(F.relu(h))))
        return logits.unflatten(1, (codes.shape[1], -1)).transpose(1, 2)


class _Block(nn.Module):
    """One layer of the vertical and of the horizontal stack."""

    def __init__(self, p, channels, first):
        super().__init__()
        self.first, size = first, FIRST_KERNEL if first else KERNEL
        features = groups(p, channels)
        both = torch.cat((features, features))
        inputs = groups(channels, channels) if first else features
        self.vertical = _MaskedConv(inputs, both, (size, size), first)
        self.vertical_to_horizontal = nn.Conv2d(2 * p, 2 * p, 1)
        self.horizontal = _MaskedConv(inputs, both, (1, size), first)
        self.out = _MaskedConv(features, features, (1, 1))

    def forward(self, v, h):
        above = self.vertical(v)
        y = self.out(_gate(self.horizontal(h) + self.vertical_to_horizontal(above)))
        return _gate(above), y if self.first else h + y


class _MaskedConv(nn.Conv2d):
    """A convolution with a masked full kernel, over features in the groups R, G, B.

    A kernel of several rows (vertical stack) sees the rows above its centre and the centre row, or
    with `first` only the rows above. A kernel of one row sees the pixels to the left, and at its
    centre the groups up to its own, or with `first` only the groups before its own.
    """

    def __init__(self, inputs, outputs, size, first=False):
        rows, columns = size[0] // 2, size[1] // 2
        super().__init__(len(inputs), len(outputs), size, padding=(rows, columns))
        mask = torch.zeros(self.weight.shape)
        if rows:
            mask[:, :, :rows + (not first)] = 1
        else:
            mask[..., :columns] = 1
            visible = torch.gt if first else torch.ge
            mask[..., columns] = visible(outputs[:, None], inputs)[..., None].float()
        self.register_buffer("mask", mask)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def _gate(x):
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)
