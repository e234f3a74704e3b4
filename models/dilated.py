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


def dilated_layers(x, outputs, weights, dilations, workspace, dropout=0.0, dtype=None):
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
    """
    if not x.shape[1]:  # no sequence, but a gradient for every weight
        return sum(part.sum() for part in (x, *weights)).expand(outputs, 0, weights[-1].shape[2])
    keep = torch.is_grad_enabled() and any(part.requires_grad for part in (x, *weights))
    return _DilatedLayers.apply(x, outputs, dilations, workspace, dropout, dtype, keep, *weights)


class _DilatedLayers(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, outputs, dilations, workspace, dropout, dtype, keep, *weights):
        T, B, p = x.shape
        layers = _plan(T, B, outputs, dilations, x.device)
        past, now, bias, residual, skip = _prepared(weights, dtype)
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
                activate_(ab.addmm_(columns[i:j].to(kept.dtype), now[n]), y)
                if dropout:
                    masks.append(torch.empty_like(y).bernoulli_(1 - dropout).div_(1 - dropout))
                    y.mul_(masks[-1])
                if n < len(residual):
                    _add_product(columns[i:j], y, residual[n])
                if j > output:
                    first = max(i, output)
                    _add_product(sums[first - output:j - output], y[first - i:], skip[n])
        if keep:
            ctx.save_for_backward(columns, kept, *weights, *masks)
            ctx.layers, ctx.shape, ctx.dtype, ctx.workspace = layers, x.shape, dtype, workspace
        return sums.view(outputs, B, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_skips):
        layers, (T, B, p) = ctx.layers, ctx.shape
        columns, kept, *weights = ctx.saved_tensors
        weights, masks = weights[:5], weights[5:]
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
        return grad_columns.view(T, B, p), None, None, None, None, None, None, *grads


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


def _plan(T, B, outputs, dilations, device):
    """[_Layer, …]: no more columns than `outputs` need, nor any that would be as the first."""
    size = max(PIECE * torch.get_num_threads() // B, 1) if device.type == "cpu" else T
    layers, begin, end, wanted = [], 0, 0, outputs + sum(dilations)
    for d in dilations:
        wanted -= d
        first = max(T - wanted, begin)
        known = min(max(begin + d, first), T)  # where t - d is not before the beginning
        pieces = [(t * B, min(t + size, known) * B, None) for t in range(first, known, size)]
        pieces += [(t * B, min(t + size, T) * B, (t - d) * B) for t in range(known, T, size)]
        layers.append(_Layer(begin * B, pieces, max(j - i for i, j, _ in pieces), end - first * B,
                             end + (T - first) * B))
        begin, end = first, layers[-1].end
    return layers


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
