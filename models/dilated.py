"""WaveNet's residual layers as one operation, its gradient written by hand.

Of a layer with input x the gated features are y_t = tanh(a_t) ⊙ σ(b_t), where

    (a, b)_t = W_past x_{t-d} + W_now x_t + bias;

the next layer's input is x_t + W_residual y_t, and W_skip y_t is added to the sum of skip
connections: figure 4 of the paper. For autograd, layer by layer, this is slow for reasons that have
nothing to do with its matrix products. So here

- All layers' inputs share one buffer. A layer needs of its input what is at t and before: in the
  order of time reversed, it can be overwritten. The backward pass subtracts again what was added,
  in the order of time. So tanh(a) and σ(b) are all that is kept of a layer.
- Likewise all inputs' gradients: a layer passes its own on to t and before.
- What is kept lies in a workspace that one step leaves to the next: the pages of memory fresh from
  the system cost as much time as what is computed in them.
- Few columns are computed at a time, so that they stay in the cache of a core.
"""

from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from models.dropout import dropout_mask
from models.gated import activate_, derivative, doubled

PIECE = 2048  # columns, of all sequences together, that a thread of a CPU computes at a time


class Workspace:
    """Memory that a step leaves to the next; a copy of it is empty."""

    def __init__(self):
        self._spare = None

    def __reduce__(self):
        return Workspace, ()

    def take(self, like, rows, width):
        """A tensor (rows, width) of the type and on the device of `like`."""
        spare, self._spare = self._spare, None
        if (spare is None or spare.numel() < rows * width
                or (spare.dtype, spare.device) != (like.dtype, like.device)):
            spare = None  # freed before there is a new one
            spare = like.new_empty(rows * width)
        return spare[:rows * width].view(rows, width)

    def give_back(self, tensor):
        """Leave it to the next `take`. Not on CUDA, where torch keeps what is freed."""
        if tensor.device.type == "cpu":
            self._spare = tensor._base


def times_at_once(batch, device):
    """Columns of each of so many sequences that are computed at a time; None for all of them."""
    if device.type != "cpu":
        return None
    return max(PIECE * torch.get_num_threads() // batch, 1)


def dilated_layers(x, outputs, weights, dilations, workspace, dropout=0.0, dtype=None,
                   frames=None, mixtures=()):
    """The sum of all layers' skip connections, for the last `outputs` times: (outputs, B, q).

    Args:
        x: (T, B, p), the first layer's input. Before its first column it is taken to have been
            constant.
        weights: of L layers, from features to features: past and now (L, p, 2p), bias (L, B, 2p),
            residual (L - 1, p, p), skip (L, p, q). The last layer has a skip connection only.
        dilations: d of each layer.
        workspace: a `Workspace`.
        dropout: the probability that a gated feature is left out.
        dtype: that the matrix products are computed in; by default x's.
        frames: what local conditioning adds to the gates' inputs, frame by frame, (L, B, K, 2p);
            None without it.
        mixtures: of `models.local`, of the columns of x, `times_at_once` in each.
    """
    mixed = [part for part in (frames, *(mixture.matrix for mixture in mixtures))
             if part is not None]
    inputs = x, *weights, *mixed
    if not x.shape[1]:  # no sequence, but a gradient for every weight
        return sum(part.sum() for part in inputs).expand(outputs, 0, weights[-1].shape[2])
    keep = torch.is_grad_enabled() and any(part.requires_grad for part in inputs)
    spans = [(mixture.low, mixture.high) for mixture in mixtures]
    return _DilatedLayers.apply(x, outputs, dilations, workspace, dropout, dtype, keep, spans,
                                *weights, *mixed)


class _DilatedLayers(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, outputs, dilations, workspace, dropout, dtype, keep, spans, *weights):
        T, B, p = x.shape
        size = times_at_once(B, x.device) or T
        layers = _plan(T, B, outputs, dilations, size)
        weights, mixed = weights[:5], weights[5:]
        past, now, bias, residual, skip = _prepared(weights, dtype)
        local = _Local(mixed, spans, size, dtype, doubled)
        columns, sums = x.reshape(-1, p).clone(), x.new_zeros(outputs * B, skip[0].shape[1])
        output = len(columns) - len(sums)  # the first row that has a skip connection
        most = max(layer.most for layer in layers)
        kept = (workspace.take(past[0], layers[-1].end, 2 * p) if keep
                else past[0].new_empty(most, 2 * p))
        gated, masks = kept.new_empty(most, p), []
        for n, layer in enumerate(layers):
            start = columns[layer.begin:layer.begin + B].to(kept.dtype)
            constant = bias[n].addmm(start, past[n])
            for i, j, before in reversed(layer.pieces):
                at = layer.at + i if keep else 0
                ab, y = kept[at:at + j - i], gated[:j - i]
                ab.view(-1, B, 2 * p).copy_(constant if before is None else bias[n])
                if before is not None:
                    ab.addmm_(columns[before:before + j - i].to(kept.dtype), past[n])
                local.add(ab, n, i)
                activate_(ab.addmm_(columns[i:j].to(kept.dtype), now[n]), y)
                if dropout:
                    masks.append(dropout_mask(y, dropout))
                    y.mul_(masks[-1])
                if n < len(residual):
                    _add_product(columns[i:j], y, residual[n])
                if j > output:
                    first = max(i, output)
                    _add_product(sums[first - output:j - output], y[first - i:], skip[n])
        if keep:
            ctx.save_for_backward(columns, kept, *weights, *mixed, *masks)
            ctx.layers, ctx.shape, ctx.dtype, ctx.workspace = layers, x.shape, dtype, workspace
            ctx.spans, ctx.size = spans, size
        return sums.view(outputs, B, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_skips):
        layers, (T, B, p) = ctx.layers, ctx.shape
        columns, kept, *weights = ctx.saved_tensors
        count = 5 + len(ctx.spans) + bool(ctx.spans)
        weights, mixed, masks = weights[:5], weights[5:count], weights[count:]
        local = _Local(mixed, ctx.spans, ctx.size, ctx.dtype)
        grads_mixed = [torch.zeros_like(part) for part in mixed]
        past, now, _, residual, skip = _prepared(weights, ctx.dtype, transposed=True)
        grads = [torch.zeros_like(w) for w in weights]
        grad_past, grad_now, grad_bias, grad_residual, grad_skip = (g.unbind() for g in grads)
        columns = columns.clone()
        grad_columns = torch.zeros_like(columns)
        grad_sums = grad_skips.reshape(-1, grad_skips.shape[-1]).to(kept.dtype)
        output = len(columns) - len(grad_sums)
        most = max(layer.most for layer in layers)
        space_y, space_dy = kept.new_empty(most, p), kept.new_empty(most, p)
        space_ab = kept.new_empty(most, 2 * p)
        for n, layer in reversed(list(enumerate(layers))):
            start = slice(layer.begin, layer.begin + B)
            for i, j, before in layer.pieces:
                rows = j - i
                y, dy, dab = space_y[:rows], space_dy[:rows], space_ab[:rows]
                activated = kept[layer.at + i:layer.at + j]
                x, dx = columns[i:j], grad_columns[i:j]
                dropped = torch.mul(activated[:, :p], activated[:, p:], out=y)
                mask = masks.pop() if masks else None
                if mask is not None:
                    dropped = y * mask
                if n < len(residual):
                    dout = dx.to(kept.dtype)
                    _add_product(x, dropped, residual[n].t(), -1)
                    _add_product(grad_residual[n], dropped.t(), dout)
                    torch.mm(dout, residual[n], out=dy)
                else:
                    dy.zero_()
                if j > output:
                    first = max(i, output)
                    dout = grad_sums[first - output:j - output]
                    _add_product(grad_skip[n], dropped[first - i:].t(), dout)
                    dy[first - i:].addmm_(dout, skip[n])
                if mask is not None:
                    dy.mul_(mask)
                total = derivative(activated, dy, dab).view(-1, B, 2 * p).sum(0)
                grad_bias[n].add_(total)
                local.add_gradients(grads_mixed, dab, n, i)
                _add_product(grad_now[n], x.to(kept.dtype).t(), dab)
                _add_product(dx, dab, now[n])
                if before is None:
                    _add_product(grad_past[n], columns[start].to(kept.dtype).t(), total)
                    _add_product(grad_columns[start], total, past[n])
                else:
                    x, dx = columns[before:before + rows], grad_columns[before:before + rows]
                    _add_product(grad_past[n], x.to(kept.dtype).t(), dab)
                    _add_product(dx, dab, past[n])
        ctx.workspace.give_back(kept)
        return grad_columns.view(T, B, p), *[None] * 7, *grads, *grads_mixed


class _Local:
    """What local conditioning adds to the gates' inputs, mixed of frames.

    mixed: frames (L, B, K, 2p) and the matrix (B, times, …) of each stretch of `size` times, as
    `dilated_layers` has them, or nothing. spans: of each matrix, which frames it mixes. scale:
    `doubled`, or None.
    """

    def __init__(self, mixed, spans, size, dtype, scale=None):
        self.spans, self.size = spans, size
        if spans:
            frames, *self.matrices = (part.to(dtype or part.dtype) for part in mixed)
            self.frames = frames * scale(frames) if scale else frames

    def add(self, gates, layer, row):
        """Add to the inputs of a layer's gates, (rows, 2p), from that row on."""
        for of_one, matrix, frames, _, _ in self._each(gates, layer, row):
            _add_product(of_one, matrix, frames)

    def add_gradients(self, grads, grad_gates, layer, row):
        """Add to `grads`, of what is mixed, what follows from the gradient of the gates' inputs."""
        for of_one, matrix, frames, b, (stretch, times, low, high) in self._each(
                grad_gates, layer, row):
            _add_product(grads[0][layer, b, low:high], matrix.t(), of_one)
            _add_product(grads[1 + stretch][b, times], of_one, frames.t())

    def _each(self, gates, layer, row):
        """For each sequence: its columns, what mixes them, the frames; its number, and where."""
        if not self.spans:
            return
        batch = self.frames.shape[1]
        time = row // batch
        stretch, first = divmod(time, self.size)
        low, high = self.spans[stretch]
        times = slice(first, first + len(gates) // batch)
        for b in range(batch):
            yield (gates.view(-1, batch, gates.shape[1])[:, b], self.matrices[stretch][b, times],
                   self.frames[layer, b, low:high], b, (stretch, times, low, high))


class _Layer(NamedTuple):
    """What a layer computes, in rows, of which each time has B.

    begin: the first row of its input. pieces: of each the first row, that after the last, and which
    row is d before the first, None where all are less than d after the beginning. most: rows of the
    largest piece. Row i is at row at + i of what is kept of all layers, and end after the last one.
    """

    begin: int
    pieces: list
    most: int
    at: int
    end: int


def _plan(T, B, outputs, dilations, size):
    """[_Layer, …]: no more columns than `outputs` need, nor any that would be as the first.

    size: the most times in a piece, none of which goes beyond a multiple of it.
    """
    layers, begin, end, wanted = [], 0, 0, outputs + sum(dilations)
    for d in dilations:
        wanted -= d
        first = max(T - wanted, begin)
        known = min(max(begin + d, first), T)  # where t - d is not before the beginning
        pieces = [(i * B, j * B, None) for i, j in _stretches(first, known, size)]
        pieces += [(i * B, j * B, (i - d) * B) for i, j in _stretches(known, T, size)]
        layers.append(_Layer(begin * B, pieces, max(j - i for i, j, _ in pieces), end - first * B,
                             end + (T - first) * B))
        begin, end = first, layers[-1].end
    return layers


def _stretches(first, end, size):
    """The times from `first` up to `end`, cut at all multiples of `size`."""
    cuts = [first, *range((first // size + 1) * size, end, size), end]
    return [(i, j) for i, j in zip(cuts, cuts[1:], strict=False) if i < j]


def _prepared(weights, dtype, transposed=False):
    """Of each kind the weights of all layers, as `activate_` wants its input; or, transposed, as a
    gradient is multiplied with them."""
    if transposed:
        weights = [w.transpose(1, 2) for w in weights]
    else:
        weights = [w * doubled(w) if n < 3 else w for n, w in enumerate(weights)]
    return [w.to(dtype or w.dtype).contiguous().unbind() for w in weights]


def _add_product(out, a, b, sign=1):
    """out += sign · a b, where out may be of a higher precision than a and b."""
    if out.dtype == a.dtype:
        out.addmm_(a, b, alpha=sign)
    else:
        out.add_(a @ b, alpha=sign)
