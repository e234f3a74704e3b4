"""Exact sampling from a PixelCNN, sub-pixel by sub-pixel, without computing anything twice.

A new sub-pixel does not change what the network computed for the earlier ones. So

- the vertical stack, which sees whole rows, runs once per row;
- its 1×1 convolution into the horizontal stack runs once per row too;
- the horizontal stack runs once per sub-pixel; for channel c it computes only the feature maps of
  group c, from cached features of the groups up to c and of the pixels to the left;
- the output layers compute only the logits of that sub-pixel.

All sub-pixels of an image then cost as much as one run of the network over the whole image. Three
samplers draw the same codes from the same random numbers:

- `NaivePixelCNNSampler` runs the network on the whole image for every sub-pixel: the reference.
- `CachedPixelCNNSampler` is the plain PyTorch form of the above, for any device and precision. Its
  features are (features, B), so those of neighbouring pixels and groups are contiguous, and each
  layer's inputs are a view.
- `sampling.compiled.pixelcnn.CompiledPixelCNNSampler` does the same in compiled loops, on the CPU.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F

from models.convolutions import group_bounds
from models.pixelcnn import Block, PixelCNN, PixelCNNConfig
from sampling.random_streams import RandomStreams


def sample_images(model: PixelCNN, streams: RandomStreams, label: torch.Tensor | None, height: int,
                  width: int, temperature: float = 1.0, top_p: float = 1.0,
                  prefix: torch.Tensor | None = None, on_row: Callable[[], object] | None = None,
                  sampler: Callable | None = None) -> torch.Tensor:
    """Draw an image for each of B random streams.

    Args:
        model: a PixelCNN, on any device.
        streams: B random streams.
        label: (B,), or vectors (B, width), or None, depending on the network.
        height, width: of the images, in pixels.
        temperature, top_p: see the `sample` of the network's distribution, `models.distributions`.
            For a softmax they divide the logits, and restrict it to the most probable codes.
        prefix: codes (B, C, n, width) of the first n rows, which are kept; None to draw all rows.
        on_row: called without arguments after each drawn row.
        sampler: a sampler class of this module, or CompiledPixelCNNSampler; by default the latter
            for a network in single precision on the CPU, otherwise CachedPixelCNNSampler.

    Returns codes (B, C, height, width), int64, on the CPU.
    """
    weight = model.logits.weight
    sampler = sampler or _default_sampler(weight)
    codes = torch.zeros(len(streams), model.config.channels, height, width, dtype=torch.long,
                        device=weight.device)
    first_row = 0 if prefix is None else prefix.shape[2]
    if prefix is not None and first_row:
        codes[:, :, :first_row] = prefix
    state = sampler(model, label, codes, first_row)
    for row in range(first_row, height):
        uniforms = streams.next_uniforms(width * codes.shape[1])
        uniforms = uniforms.view(len(streams), width, codes.shape[1])
        state.draw_row(row, uniforms.to(codes.device), temperature, top_p)
        if on_row:
            on_row()
    return codes.cpu()


def _default_sampler(weight: torch.Tensor) -> Callable:
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        # Here, because importing numba takes a moment.
        from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
        return CompiledPixelCNNSampler
    return CachedPixelCNNSampler


class NaivePixelCNNSampler:
    """Runs the network on the whole image for every sub-pixel.

    codes: (B, C, H, W), where rows will be drawn; those before `first_row` are the prefix.
    """

    def __init__(self, model: PixelCNN, label: torch.Tensor | None, codes: torch.Tensor,
                 first_row: int) -> None:
        self.model, self.label, self.codes = model, label, codes

    @torch.inference_mode()
    def draw_row(self, row: int, uniforms: torch.Tensor, temperature: float, top_p: float) -> None:
        """Draw a row of codes from uniform random numbers (B, W, C)."""
        _, channels, _, width = self.codes.shape
        for column in range(width):
            for channel in range(channels):
                logits = self.model(self.codes, self.label)[:, :, channel, row, column]
                self.codes[:, channel, row, column] = self.model.distribution.sample(
                    logits, uniforms[:, column, channel], temperature, top_p)


class CachedPixelCNNSampler:
    """Runs the vertical stack a row at a time, and the horizontal stack a sub-pixel at a time.

    codes: (B, C, H, W), where rows will be drawn; those before `first_row` are the prefix.
    """

    @torch.inference_mode()
    def __init__(self, model: PixelCNN, label: torch.Tensor | None, codes: torch.Tensor,
                 first_row: int) -> None:
        self.codes, self.distribution = codes, model.distribution
        self.vertical = _VerticalStack(model, model.scale_vectors(label), codes)
        self.horizontal = _HorizontalStack(model, len(codes), codes.shape[3])

    def draw_row(self, row: int, uniforms: torch.Tensor, temperature: float, top_p: float) -> None:
        """Draw a row of codes from uniform random numbers (B, W, C)."""
        self.fill_row(row, lambda logits, column, channel: self.distribution.sample(
            logits, uniforms[:, column, channel], temperature, top_p))

    @torch.inference_mode()
    def fill_row(self, row: int,
                 code_of: Callable[[torch.Tensor, int, int], torch.Tensor]) -> None:
        """Fill a row with the codes (B,) that code_of(parameters, column, channel) returns.

        parameters: of the sub-pixel's distribution, (B, parameters).
        The first call also reads the prefix rows. They need no horizontal stack.
        """
        _, channels, _, width = self.codes.shape
        contexts = self.vertical.advance_to(row)
        for column in range(width):
            for channel in range(channels):
                code = code_of(self.horizontal.logits(contexts, column, channel), column, channel)
                self.codes[:, channel, row, column] = code
                self.horizontal.set_code(code, column, channel)


class _VerticalStack:
    """Runs the vertical stack a row at a time, and caches the last row of each block's input."""

    def __init__(self, model: PixelCNN, label: torch.Tensor | None, codes: torch.Tensor) -> None:
        self.model, self.label, self.codes, self.row = model, label, codes, 0
        batch, _, _, width = codes.shape
        zeros, p = model.logits.weight.new_zeros, model.config.hidden_dim
        self.before = [zeros(batch, block.radius, width, p) for block in model.blocks[1:]]
        self.into_horizontal = [_ContextWeights(block, model.config, label)
                                for block in model.blocks]

    def advance_to(self, row: int) -> list[torch.Tensor]:
        """The contexts at `row`: what the vertical stack adds to each horizontal gate's input.

        Reads the codes of the rows above. Returns per block (W, 2p, B), ordered by
        `_group_order`.
        """
        first = self.model.blocks[0]
        seen = self.codes[:, :, max(self.row - first.radius, 0):row]
        v = F.pad(self.model.encode(seen), (0, 0, 0, 0, max(first.radius - self.row, 0), 0))
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
    """A block's 1×1 convolution from the vertical to the horizontal stack, plus the condition."""

    def __init__(self, block: Block, config: PixelCNNConfig, label: torch.Tensor | None) -> None:
        order = _group_order(config)
        convolution = block.vertical_to_horizontal
        assert convolution.bias is not None
        self.weight = convolution.weight[order, :, 0, 0]
        self.bias = convolution.bias[order, None]
        condition = block.horizontal_gate.condition
        if condition is not None:
            self.bias = self.bias + condition(label).t()[order]

    def __call__(self, above: torch.Tensor) -> torch.Tensor:
        """above: (B, W, 2p) -> (W, 2p, B)."""
        return self.weight @ above.permute(1, 2, 0) + self.bias


class _HorizontalStack:
    """Runs the horizontal stack a sub-pixel at a time, and caches the features of the row."""

    def __init__(self, model: PixelCNN, batch: int, width: int) -> None:
        config, self.read_code = model.config, model.read_code
        self.features = _group_slices(config.hidden_dim, config.channels)
        self.hidden = _group_slices(config.out_hidden_dim, config.channels)
        self.blocks = [_HorizontalWeights(block, config) for block in model.blocks]
        assert model.hidden.bias is not None and model.logits.bias is not None
        self.to_hidden = [(model.hidden.weight[a:b, :end, 0, 0], model.hidden.bias[a:b, None])
                          for (a, b), (_, end) in zip(self.hidden, self.features, strict=True)]
        n = model.distribution.parameters
        self.to_logits = [(model.logits.weight[c * n:(c + 1) * n, :end, 0, 0],
                           model.logits.bias[c * n:(c + 1) * n, None])
                          for c, (_, end) in enumerate(self.hidden)]
        zeros = model.logits.weight.new_zeros
        # Each block's input, pixel after pixel, behind the zeros that pad the row on its left.
        self.rows = [zeros((block.radius + width) * block.inputs, batch) for block in self.blocks]
        # For the current pixel: each block's gated features, and those of the two last layers.
        self.gated = [zeros(config.hidden_dim, batch) for _ in self.blocks]
        self.last = zeros(config.hidden_dim, batch)
        self.last_hidden = zeros(config.out_hidden_dim, batch)

    def logits(self, contexts: list[torch.Tensor], column: int, channel: int) -> torch.Tensor:
        """The parameters (B, n) of a sub-pixel's distribution, such as logits.

        After `set_code` for all sub-pixels before it in the row.
        """
        a, b = self.features[channel]
        for number, block in enumerate(self.blocks):
            row, gated = self.rows[number], self.gated[number]
            begin, here = column * block.inputs, (column + block.radius) * block.inputs
            x = torch.addmm(contexts[number][column, 2 * a:2 * b], block.weight[channel],
                            row[begin:here + block.sees[channel]])
            torch.mul(x[:b - a].tanh_(), x[b - a:].sigmoid_(), out=gated[a:b])
            y = torch.addmm(block.out_bias[channel], block.out[channel], gated[:b])
            if not block.first:
                y += row[here + a:here + b]
            if number + 1 < len(self.blocks):
                following = self.blocks[number + 1]
                there = (column + following.radius) * following.inputs
                self.rows[number + 1][there + a:there + b] = y
        self.last[a:b] = y.relu_()
        c, d = self.hidden[channel]
        weight, bias = self.to_hidden[channel]
        self.last_hidden[c:d] = torch.addmm(bias, weight, self.last[:b]).relu_()
        weight, bias = self.to_logits[channel]
        return torch.addmm(bias, weight, self.last_hidden[:d]).t()

    def set_code(self, code: torch.Tensor, column: int, channel: int) -> None:
        """Set the code (B,) of the sub-pixel at `column` and `channel`."""
        first, features = self.blocks[0], self.read_code(code).t()
        begin = (column + first.radius) * first.inputs + channel * len(features)
        self.rows[0][begin:begin + len(features)] = features


class _HorizontalWeights:
    """A block's horizontal weights, split by the channel whose features they compute.

    weight[c]: (2 p_c, the inputs of the `radius` pixels to the left, then the first sees[c] inputs
    of the pixel itself). out[c]: (p_c, gated features of the groups up to c), with out_bias[c].
    """

    def __init__(self, block: Block, config: PixelCNNConfig) -> None:
        bounds = _group_slices(config.hidden_dim, config.channels)
        self.first, self.radius, self.inputs = block.first, block.radius, block.left.in_channels
        kernel = block.horizontal_kernel
        kernel = kernel[:, :, 0].transpose(1, 2).flatten(1)[_group_order(config)]
        # In the first block channel c sees the channels before it; in the others the groups up to
        # its own.
        self.sees = ([channel * config.code_features for channel in range(config.channels)]
                     if block.first else [end for _, end in bounds])
        self.weight = [kernel[2 * a:2 * b, :self.radius * self.inputs + seen].contiguous()
                       for (a, b), seen in zip(bounds, self.sees, strict=True)]
        self.out = [block.out.weight[a:b, :b, 0, 0].contiguous() for a, b in bounds]
        assert block.out.bias is not None
        self.out_bias = [block.out.bias[a:b, None] for a, b in bounds]


def _group_slices(width: int, channels: int) -> list[tuple[int, int]]:
    """Where each group of feature maps begins and ends among `width`."""
    return list(pairwise(group_bounds(width, channels)))


def _group_order(config: PixelCNNConfig) -> torch.Tensor:
    """The order of a gate's 2p inputs that puts each group's two halves side by side."""
    p = config.hidden_dim
    return torch.cat([torch.arange(half + a, half + b)
                      for a, b in _group_slices(p, config.channels) for half in (0, p)])
