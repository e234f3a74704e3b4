"""WaveNet's residual layers as one operation with a hand-written gradient.

A layer with input x has the gated features y_t = tanh(a_t) ⊙ σ(b_t), where

    (a, b)_t = W_past x_{t-d} + W_now x_t + bias.

The next layer's input is x_t + W_residual y_t, and W_skip y_t is added to the sum of the skip
connections (figure 4 of the paper). Layer-by-layer autograd is slow for reasons other than the
matrix products. This operation avoids them:

- All layers' inputs share one buffer. A layer reads its input at t and before, so it can overwrite
  the buffer if it runs backwards in time. The backward pass runs forwards in time and subtracts
  what the layer added. So tanh(a) and σ(b) are the only stored activations of a layer.
- All inputs' gradients share one buffer too: a layer propagates its gradient to t and before.
- Activations live in a buffer that steps reuse, because fresh pages cost as much as the arithmetic.
- Columns are processed in chunks, so that they stay in a core's cache.

Columns are stored as rows of matrices: row t · B + b is time t of sequence b.

This is the plain form, for all devices and types. On a CPU in single precision, `compiled_layers`
computes the same in fewer passes through memory.
"""

from collections.abc import Sequence

import torch
from torch.autograd.function import once_differentiable

from models import compiled
from models.dilated_plan import plan_layers
from models.dropout import dropout_mask
from models.gated import gate_backward, gate_forward_, gate_scale
from models.local_conditioning import Interpolation, interpolation_matrix
from models.workspace import Workspace

# The most channels for which the compiled passes are faster than torch's products. Beyond, a
# layer's weights don't fit in a core's cache, or torch multiplies bfloat16 twice as fast.
WIDEST_COMPILED = {None: 256, torch.bfloat16: 64}
CHUNK_COLUMNS = 2048  # columns of all sequences per thread and chunk: 0.5 MB at a gate width of 64


def chunk_length(batch: int, device: torch.device) -> int | None:
    """Columns per chunk of each of `batch` sequences; None for all columns in one chunk."""
    if device.type != "cpu":
        return None
    return max(CHUNK_COLUMNS * torch.get_num_threads() // batch, 1)


def dilated_layers(x: torch.Tensor, outputs: int, weights: Sequence[torch.Tensor],
                   dilations: Sequence[int], workspace: Workspace, dropout: float = 0.0,
                   dtype: torch.dtype | None = None, frame_inputs: torch.Tensor | None = None,
                   interpolation: Interpolation | None = None) -> torch.Tensor:
    """The sum of all layers' skip connections at the last `outputs` times: (outputs, B, q).

    Args:
        x: (T, B, p), the first layer's input. It is constant before its first column.
        weights: of L layers: past and now (L, p, 2p), bias (L, B, 2p), residual (L - 1, p, p),
            skip (L, p, q), each from input to output features. The last layer has no residual
            connection.
        dilations: d of each layer.
        workspace: the buffer for the activations.
        dropout: the probability of zeroing a gated feature.
        dtype: the precision of the matrix products, which may be higher; None for x's.
        frame_inputs: what local conditioning adds to the gates' inputs per frame, (L, B, K, 2p);
            None without it.
        interpolation: how to interpolate `frame_inputs` at the columns of x; None without them.
    """
    conditioning = () if interpolation is None else (frame_inputs, interpolation.weights)
    inputs = x, *weights, *conditioning
    T, B, p = x.shape
    if not B:  # an empty batch, which still needs a gradient for every weight
        zero = torch.stack([part.sum() for part in inputs]).sum()
        return zero.expand(outputs, 0, weights[-1].shape[2])
    if compiled.suits(x) and p <= WIDEST_COMPILED.get(dtype, 0):
        from models.compiled_layers import run_compiled  # which imports numba
        return run_compiled(x, outputs, weights, dilations, workspace, dropout, frame_inputs,
                            interpolation)
    needs_grad = torch.is_grad_enabled() and any(part.requires_grad for part in inputs)
    frames = None if interpolation is None else interpolation.frames
    return _DilatedLayers.apply(x, outputs, dilations, workspace, dropout, dtype, needs_grad,
                                frames, *inputs[1:])


class _DilatedLayers(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, outputs, dilations, workspace, dropout, dtype, needs_grad, frames,
                *tensors):
        T, B, p = x.shape
        length = chunk_length(B, x.device) or T
        layers = plan_layers(T, B, outputs, dilations, length)
        weights, conditioning = tensors[:5], tensors[5:]
        past, now, bias, residual, skip = _forward_weights(weights, dtype)
        local = _LocalConditioning(conditioning, frames, length, dtype, scaled=True)
        columns, sums = x.reshape(-1, p).clone(), x.new_zeros(outputs * B, skip[0].shape[1])
        first_output = len(columns) - len(sums)  # the first row that has a skip connection
        largest = max(layer.largest_chunk for layer in layers)
        if needs_grad:
            activations = workspace.take(past[0], layers[-1].end, 2 * p)
        else:
            activations = past[0].new_empty(largest, 2 * p)
        gated, masks = activations.new_empty(largest, p), []
        for n, layer in enumerate(layers):
            start = columns[layer.begin:layer.begin + B].to(activations.dtype)
            constant = bias[n].addmm(start, past[n])  # where x_{t-d} is the first column
            for i, j, before in reversed(layer.chunks):
                offset = layer.offset + i if needs_grad else 0
                ab, y = activations[offset:offset + j - i], gated[:j - i]
                ab.view(-1, B, 2 * p).copy_(constant if before is None else bias[n])
                if before is not None:
                    ab.addmm_(columns[before:before + j - i].to(activations.dtype), past[n])
                local.add(ab, n, i)
                gate_forward_(ab.addmm_(columns[i:j].to(activations.dtype), now[n]), y)
                if dropout:
                    masks.append(dropout_mask(y, dropout))
                    y.mul_(masks[-1])
                if n < len(residual):
                    _add_product(columns[i:j], y, residual[n])
                if j > first_output:
                    first = max(i, first_output)
                    _add_product(sums[first - first_output:j - first_output], y[first - i:],
                                 skip[n])
        if needs_grad:
            ctx.save_for_backward(columns, activations, *weights, *conditioning, *masks)
            ctx.layers, ctx.shape, ctx.dtype, ctx.workspace = layers, x.shape, dtype, workspace
            ctx.frames, ctx.length = frames, length
        return sums.view(outputs, B, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_skips):
        layers, (T, B, p) = ctx.layers, ctx.shape
        columns, activations, *tensors = ctx.saved_tensors
        count = 5 if ctx.frames is None else 7
        weights, conditioning, masks = tensors[:5], tensors[5:count], tensors[count:]
        local = _LocalConditioning(conditioning, ctx.frames, ctx.length, ctx.dtype)
        past, now, residual, skip = _backward_weights(weights, ctx.dtype)
        grads = [torch.zeros_like(w) for w in weights]
        grad_past, grad_now, grad_bias, grad_residual, grad_skip = (g.unbind() for g in grads)
        columns = columns.clone()
        grad_columns = torch.zeros_like(columns)
        grad_sums = grad_skips.reshape(-1, grad_skips.shape[-1]).to(activations.dtype)
        first_output = len(columns) - len(grad_sums)
        largest = max(layer.largest_chunk for layer in layers)
        y_buffer, dy_buffer = (activations.new_empty(largest, p) for _ in range(2))
        dab_buffer = activations.new_empty(largest, 2 * p)
        for n, layer in reversed(list(enumerate(layers))):
            start = slice(layer.begin, layer.begin + B)
            for i, j, before in layer.chunks:
                rows = j - i
                y, dy, dab = y_buffer[:rows], dy_buffer[:rows], dab_buffer[:rows]
                activated = activations[layer.offset + i:layer.offset + j]
                x, dx = columns[i:j], grad_columns[i:j]
                torch.mul(activated[:, :p], activated[:, p:], out=y)
                mask = masks.pop() if masks else None
                if mask is not None:
                    y.mul_(mask)
                if n < len(residual):
                    dout = dx.to(activations.dtype)
                    _add_product(x, y, residual[n].t(), -1)
                    _add_product(grad_residual[n], y.t(), dout)
                    torch.mm(dout, residual[n], out=dy)
                else:
                    dy.zero_()
                if j > first_output:
                    first = max(i, first_output)
                    dout = grad_sums[first - first_output:j - first_output]
                    _add_product(grad_skip[n], y[first - i:].t(), dout)
                    dy[first - i:].addmm_(dout, skip[n])
                if mask is not None:
                    dy.mul_(mask)
                total = gate_backward(activated, dy, dab).view(-1, B, 2 * p).sum(0)
                grad_bias[n].add_(total)
                local.add_gradients(dab, n, i)
                _add_product(grad_now[n], x.to(activations.dtype).t(), dab)
                _add_product(dx, dab, now[n])
                if before is None:
                    _add_product(grad_past[n], columns[start].to(activations.dtype).t(), total)
                    _add_product(grad_columns[start], total, past[n])
                else:
                    x, dx = columns[before:before + rows], grad_columns[before:before + rows]
                    _add_product(grad_past[n], x.to(activations.dtype).t(), dab)
                    _add_product(dx, dab, past[n])
        ctx.workspace.give_back(activations)
        return grad_columns.view(T, B, p), *[None] * 7, *grads, *local.gradients()


class _LocalConditioning:
    """What local conditioning adds to the gates' inputs, interpolated from frames.

    The interpolation is a matrix (B, columns, frames) for each chunk of columns.

    Args:
        conditioning: the frames (L, B, K, 2p) and the weights (B, T, taps); or nothing.
        first: (B, T), the first frame of each column.
        length: columns of a chunk.
        dtype: the precision of the matrix products; None for the frames'.
        scaled: multiply the frames by `gate_scale`, as `gate_forward_` expects.
    """

    def __init__(self, conditioning, first, length, dtype, scaled=False):
        self.chunks, self.length, self.grads = [], length, []
        if not conditioning:
            return
        frames, weights = (part.to(dtype or part.dtype) for part in conditioning)
        self.frames = frames * gate_scale(frames) if scaled else frames
        self.grad_frames = torch.zeros_like(conditioning[0])
        for chunk, part in zip(first.split(length, 1), weights.split(length, 1), strict=True):
            self.chunks.append(interpolation_matrix(chunk, part))
            self.grads.append(torch.zeros_like(self.chunks[-1].matrix,
                                               dtype=conditioning[1].dtype))

    def add(self, gates, layer, row):
        """Add to `gates` (rows, 2p), the inputs of a layer's gates from row `row` on."""
        for columns, matrix, frames, *_ in self._sequences(gates, layer, row):
            _add_product(columns, matrix, frames)

    def add_gradients(self, grad_gates, layer, row):
        """Add the effect of the gradient of the gates' inputs to `gradients`."""
        for columns, matrix, frames, grad_matrix, grad_frames in self._sequences(
                grad_gates, layer, row):
            _add_product(grad_frames, matrix.t(), columns)
            _add_product(grad_matrix, columns, frames.t())

    def gradients(self):
        """The gradients of `conditioning`."""
        if not self.chunks:
            return []
        return [self.grad_frames, torch.cat([grad.gather(2, chunk.taps) for grad, chunk in zip(
            self.grads, self.chunks, strict=True)], dim=1)]

    def _sequences(self, gates, layer, row):
        """For each sequence: its columns, their interpolation matrix, its frames, and the gradients
        of the latter two."""
        if not self.chunks:
            return
        batch = self.frames.shape[1]
        number, begin = divmod(row // batch, self.length)
        matrix, _, low, high = self.chunks[number]
        times = slice(begin, begin + len(gates) // batch)
        for b in range(batch):
            yield (gates.view(-1, batch, gates.shape[1])[:, b], matrix[b, times],
                   self.frames[layer, b, low:high], self.grads[number][b, times],
                   self.grad_frames[layer, b, low:high])


def _forward_weights(weights, dtype):
    """Each kind of weights, per layer, with the gates' inputs scaled as `gate_forward_` expects."""
    past, now, bias, residual, skip = weights
    scaled = [w * gate_scale(w) for w in (past, now, bias)]
    return [w.to(dtype or w.dtype).contiguous().unbind() for w in (*scaled, residual, skip)]


def _backward_weights(weights, dtype):
    """The matrices past, now, residual and skip, per layer, transposed."""
    past, now, _, residual, skip = weights
    return [w.transpose(1, 2).to(dtype or w.dtype).contiguous().unbind()
            for w in (past, now, residual, skip)]


def _add_product(out, a, b, sign=1):
    """out += sign · a b, where out may have a higher precision than a and b."""
    if out.dtype == a.dtype:
        out.addmm_(a, b, alpha=sign)
    else:
        out.add_(a @ b, alpha=sign)
