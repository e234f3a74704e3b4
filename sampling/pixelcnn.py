"""Drawing images from a PixelCNN, sub-pixel by sub-pixel, without computing anything twice.

A new sub-pixel changes nothing of what the network computed for those before it. So

- the vertical stack, which sees whole rows, is run once a row;
- so is its 1×1 convolution into the horizontal stack;
- the horizontal stack is run once a sub-pixel, and for channel c only its feature maps of group c,
  from those of the groups up to c and of the pixels to the left, which are kept;
- of the output layers only what makes that sub-pixel's logits is computed.

All sub-pixels of an image then cost together as much as one run of the network over the whole
image. Three samplers give the same codes from the same draws:

- `Naive` makes such a run for every sub-pixel: the reference for tests;
- `Cached` is the plain PyTorch form of the above, for any device and precision. Inside, features
  are (features, B): those of pixels side by side, and those of groups side by side, are then
  contiguous, so that each layer's inputs are a view;
- `sampling.compiled.pixelcnn.Compiled` does the same in compiled loops, on the CPU.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

from models.pixelcnn import group_bounds
from sampling.random_streams import choose


def sample(model, draws, label, height, width, temperature=1.0, top_p=1.0, given=None, on_row=None,
           sampler=None):
    """Draw an image for each stream of `draws`.

    Args:
        model: a PixelCNN, on any device.
        draws: a `sampling.random_streams.Draws` of B streams.
        label: (B,), or the vectors (B, width), or None, as the network is conditioned.
        height, width: of the images, in pixels.
        temperature: that the logits are divided by; 0 takes the most probable code everywhere.
        top_p: draw among the most probable codes that together have this probability, in (0, 1].
        given: codes (B, C, n, width) of the first n rows, which are kept; None to draw all.
        on_row: called without arguments after each row that was drawn.
        sampler: Naive, Cached or Compiled; by default Compiled for a network in single precision
            on the CPU, otherwise Cached.

    Returns codes (B, C, height, width), int64, on the CPU.
    """
    weight = model.logits.weight
    if sampler is None:
        sampler = Cached
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            from sampling.compiled.pixelcnn import Compiled as sampler  # takes a moment to import
    codes = torch.zeros(len(draws), model.config.channels, height, width, dtype=torch.long,
                        device=weight.device)
    first = 0 if given is None else given.shape[2]
    if first:
        codes[:, :, :first] = given
    state = sampler(model, label, codes, first)
    for row in range(first, height):
        uniforms = draws.next(width * codes.shape[1]).view(len(draws), width, codes.shape[1])
        state.draw_row(row, uniforms.to(codes.device), temperature, top_p)
        if on_row:
            on_row()
    return codes.cpu()


class Naive:
    """The whole network over the whole image for every sub-pixel."""

    def __init__(self, model, label, codes, first):
        """codes: (B, C, H, W), where rows will be drawn; those before row `first` are given."""
        self.model, self.label, self.codes = model, label, codes

    @torch.inference_mode()
    def draw_row(self, row, uniforms, temperature, top_p):
        """Draw a row of codes, given random numbers (B, W, C)."""
        _, channels, _, width = self.codes.shape
        for column in range(width):
            for channel in range(channels):
                logits = self.model(self.codes, self.label)[:, :, channel, row, column]
                self.codes[:, channel, row, column] = choose(
                    logits, uniforms[:, column, channel], temperature, top_p)


class Cached:
    """The vertical stack a row at a time, the horizontal one a sub-pixel at a time."""

    @torch.inference_mode()
    def __init__(self, model, label, codes, first):
        """codes: (B, C, H, W), where rows will be drawn; those before row `first` are given."""
        self.codes = codes
        self.vertical = _VerticalStack(model, model.scale_vectors(label), codes)
        self.horizontal = _HorizontalStack(model, len(codes), codes.shape[3])

    def draw_row(self, row, uniforms, temperature, top_p):
        """Draw a row of codes, given random numbers (B, W, C)."""
        self.fill_row(row, lambda logits, column, channel: choose(
            logits, uniforms[:, column, channel], temperature, top_p))

    @torch.inference_mode()
    def fill_row(self, row, code_of):
        """Fill a row with the codes (B,) that code_of(logits (B, levels), column, channel) says."""
        _, channels, _, width = self.codes.shape
        # The first time this brings in the rows that are given. They need no horizontal stack.
        contexts = self.vertical.advance_to(row)
        for column in range(width):
            for channel in range(channels):
                code = code_of(self.horizontal.logits(contexts, column, channel), column, channel)
                self.codes[:, channel, row, column] = code
                self.horizontal.tell(code, column, channel)


class _VerticalStack:
    """The vertical stack, a row at a time; of each block's input it keeps the last row."""

    def __init__(self, model, label, codes):
        self.model, self.label, self.codes, self.row = model, label, codes, 0
        batch, _, _, width = codes.shape
        zeros, p = model.logits.weight.new_zeros, model.config.hidden_dim
        self.before = [zeros(batch, block.reach, width, p) for block in model.blocks[1:]]
        self.into_horizontal = [_ContextWeights(block, model.config, label)
                                for block in model.blocks]

    def advance_to(self, row):
        """What the horizontal stack is given at `row`, whose rows above are in the codes.

        Returns for each block (W, 2p, B), the 2p in the order of `_by_group`.
        """
        first = self.model.blocks[0]
        seen = self.codes[:, :, max(self.row - first.reach, 0):row].permute(0, 2, 3, 1)
        v = F.pad(self.model.scale(seen), (0, 0, 0, 0, max(first.reach - self.row, 0), 0))
        contexts = []
        for number, block in enumerate(self.model.blocks):
            above = block.vertical_features(v, self.row)
            contexts.append(self.into_horizontal[number](above[:, -1]))
            if block.vertical_gate is not None:
                new = block.vertical_gate(above, label=self.label)
                v = torch.cat((self.before[number], new), dim=1)
                self.before[number] = v[:, new.shape[1]:]
        self.row = row + 1
        return contexts


class _ContextWeights:
    """One block's 1×1 convolution from the vertical to the horizontal stack, with the condition."""

    def __init__(self, block, config, label):
        order = _by_group(config)
        convolution = block.vertical_to_horizontal
        self.weight = convolution.weight[order, :, 0, 0]
        self.bias = convolution.bias[order, None]
        condition = block.horizontal_gate.condition
        if condition is not None:
            self.bias = self.bias + condition(label).t()[order]

    def __call__(self, above):
        """above: (B, W, 2p) -> (W, 2p, B)."""
        return self.weight @ above.permute(1, 2, 0) + self.bias


class _HorizontalStack:
    """The horizontal stack, a sub-pixel at a time; it keeps the features of the row so far."""

    def __init__(self, model, batch, width):
        config, self.scale = model.config, model.scale
        self.features = _bounds(config.hidden_dim, config.channels)
        self.hidden = _bounds(config.out_hidden_dim, config.channels)
        self.blocks = [_HorizontalWeights(block, config) for block in model.blocks]
        self.to_hidden = [(model.hidden.weight[a:b, :end, 0, 0], model.hidden.bias[a:b, None])
                          for (a, b), (_, end) in zip(self.hidden, self.features, strict=True)]
        levels = config.levels
        self.to_logits = [(model.logits.weight[c * levels:(c + 1) * levels, :end, 0, 0],
                           model.logits.bias[c * levels:(c + 1) * levels, None])
                          for c, (_, end) in enumerate(self.hidden)]
        zeros = model.logits.weight.new_zeros
        # Each block's input, pixel after pixel, after the zeros that pad the row on its left.
        self.rows = [zeros((block.reach + width) * block.inputs, batch) for block in self.blocks]
        # Of the pixel at hand: each block's gated features, and those of the two last layers.
        self.gated = [zeros(config.hidden_dim, batch) for _ in self.blocks]
        self.last = zeros(config.hidden_dim, batch)
        self.last_hidden = zeros(config.out_hidden_dim, batch)

    def logits(self, contexts, column, channel):
        """Logits (B, levels) of a sub-pixel, once `tell` has told all before it in the row."""
        a, b = self.features[channel]
        for number, block in enumerate(self.blocks):
            row, gated = self.rows[number], self.gated[number]
            begin, here = column * block.inputs, (column + block.reach) * block.inputs
            x = torch.addmm(contexts[number][column, 2 * a:2 * b], block.weight[channel],
                            row[begin:here + block.sees[channel]])
            torch.mul(x[:b - a].tanh_(), x[b - a:].sigmoid_(), out=gated[a:b])
            y = torch.addmm(block.out_bias[channel], block.out[channel], gated[:b])
            if not block.first:
                y += row[here + a:here + b]
            if number + 1 < len(self.blocks):
                following = self.blocks[number + 1]
                there = (column + following.reach) * following.inputs
                self.rows[number + 1][there + a:there + b] = y
        self.last[a:b] = y.relu_()
        c, d = self.hidden[channel]
        weight, bias = self.to_hidden[channel]
        self.last_hidden[c:d] = torch.addmm(bias, weight, self.last[:b]).relu_()
        weight, bias = self.to_logits[channel]
        return torch.addmm(bias, weight, self.last_hidden[:d]).t()

    def tell(self, code, column, channel):
        """The sub-pixel at `column` and `channel` is `code`: (B,)."""
        first = self.blocks[0]
        self.rows[0][(column + first.reach) * first.inputs + channel] = self.scale(code)


class _HorizontalWeights:
    """One block's horizontal weights, cut up by the channel whose features they compute.

    weight[c]: (2 p_c, inputs of the `reach` pixels to the left and the sees[c] first inputs of the
    pixel itself). out[c]: (p_c, gated features of the groups up to c), with out_bias[c].
    """

    def __init__(self, block, config):
        bounds = _bounds(config.hidden_dim, config.channels)
        self.first, self.reach, self.inputs = block.first, block.reach, block.left.in_channels
        kernel = block.left.weight
        if block.here is not None:
            kernel = torch.cat((kernel, block.here.kernel), dim=3)
        kernel = kernel[:, :, 0].transpose(1, 2).flatten(1)[_by_group(config)]
        # In the first block channel c sees the channels before it; then the groups up to its own.
        self.sees = list(range(config.channels)) if block.first else [end for _, end in bounds]
        self.weight = [kernel[2 * a:2 * b, :self.reach * self.inputs + seen].contiguous()
                       for (a, b), seen in zip(bounds, self.sees, strict=True)]
        self.out = [block.out.weight[a:b, :b, 0, 0].contiguous() for a, b in bounds]
        self.out_bias = [block.out.bias[a:b, None] for a, b in bounds]


def _bounds(width, channels):
    """Where each group's feature maps begin and end among `width`: [(begin, end), …]."""
    return list(pairwise(group_bounds(width, channels)))


def _by_group(config):
    """The order of the 2p inputs of a gate in which each group's two halves are together."""
    p = config.hidden_dim
    return torch.cat([torch.arange(half + a, half + b)
                      for a, b in _bounds(p, config.channels) for half in (0, p)])
