"""The dilated layers of `models.dilated` in compiled passes, for single precision on a CPU.

`models.kernels.dilated_forward` and `dilated_backward` have the passes. Here are the layout of
their arrays, the division of sequences among threads, and autograd. Results equal the plain form's
to single precision. What differs is traffic: torch's matrix products pass a layer's columns through
memory ten times, the kernels twice.

Each thread computes sequences of its own. The sequences that are left over, fewer than threads, are
computed by all threads together, one after the other. So gradients are added in another order for
another number of threads.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from models.dilated_plan import plan_layers
from models.kernels import dilated_backward, dilated_forward
from models.kernels.dilated_backward import BackwardWeights, Gradients
from models.kernels.dilated_forward import Dropout, ForwardWeights, Plan
from models.kernels.interpolation import LocalInputs
from models.kernels.layout import flat, gate_lanes, round_up
from models.kernels.threads import run_threads
from models.kernels.vectors import HALF
from models.local_conditioning import INTERPOLATION_TAPS as TAPS
from models.local_conditioning import Interpolation
from models.workspace import Workspace

LEAST_WORK = 1 << 22  # multiplications for each thread: fewer take no longer than starting one
HASHES = 1 << 32  # a feature is dropped by 32 random bits


def run_compiled(x: torch.Tensor, outputs: int, weights: Sequence[torch.Tensor],
                 dilations: Sequence[int], workspace: Workspace, dropout: float,
                 frame_inputs: torch.Tensor | None, interpolation: Interpolation | None
                 ) -> torch.Tensor:
    """`models.dilated.dilated_layers` in compiled passes: see there."""
    _prepare_forward()
    conditioning = () if interpolation is None else (frame_inputs, interpolation.weights)
    inputs = x, *weights, *conditioning
    needs_grad = torch.is_grad_enabled() and any(part.requires_grad for part in inputs)
    if needs_grad:
        _prepare_backward()
    passes = _Passes(x.shape, outputs, weights[-1].shape[2], dilations)
    return _CompiledLayers.apply(passes, workspace, dropout, needs_grad, interpolation, *inputs)


class _Passes:
    """The sizes of a call, and its sequences' threads.

    Args:
        shape: (T, B, p) of the first layer's input.
        outputs: times with a skip connection.
        q: skip channels.
        dilations: d of each layer.
    """

    def __init__(self, shape: torch.Size, outputs: int, q: int, dilations: Sequence[int]) -> None:
        self.rows, self.batch, self.p = shape
        self.outputs, self.q, self.count = outputs, q, len(dilations)
        self.gates, self.width = 2 * round_up(self.p, HALF), round_up(self.p)
        self.skips = round_up(q)
        layers = plan_layers(self.rows, 1, outputs, dilations, self.rows)
        self.plan = Plan(self.p, q, self.rows, self.rows - outputs, *(
            np.array([getattr(layer, name) for layer in layers], np.int64)
            for name in ("begin", "first", "shift", "offset")))
        self.kept_rows = layers[-1].end
        work = self.batch * self.kept_rows * 5 * self.p ** 2
        self.threads = int(min(torch.get_num_threads(), max(work // LEAST_WORK, 1)))
        lanes = torch.from_numpy(gate_lanes(0, self.p, self.p))
        self.lanes = torch.where(lanes < 0, 2 * self.p, lanes)  # 2p is a column of zeros
        self.places = lanes.argsort()[(lanes < 0).sum():]  # of each output among the lanes

    def run(self, call) -> None:
        """Call call(sequence, owner, thread, threads, barrier) for all sequences.

        owner: the number of the thread's gradients. The thread is number `thread` of the `threads`
        that share the sequence.
        """
        own = self.batch // self.threads * self.threads
        alone = np.zeros(1, np.int64)

        def work(owner, barrier):
            for sequence in range(owner, own, self.threads):
                call(sequence, owner, 0, 1, alone)
            for sequence in range(own, self.batch):
                call(sequence, owner, owner, self.threads, barrier)

        run_threads(work, self.threads)

    def slots(self, size: int) -> np.ndarray:
        """A buffer of `size` floats for each thread, and one for a sequence that all share."""
        return flat(torch.empty(self.threads + 1, size)).reshape(self.threads + 1, size)

    def slot(self, owner: int, threads: int) -> int:
        """The buffer in `slots` of a sequence that `threads` threads share."""
        return self.threads if threads > 1 else owner

    def to_gates(self, x: torch.Tensor) -> torch.Tensor:
        """Features (…, 2p) in the order of a gate's lanes: (…, gates)."""
        return F.pad(x, (0, 1)).index_select(-1, self.lanes)

    def from_gates(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `to_gates`."""
        return x.index_select(-1, self.places)

    def forward_weights(self, weights: Sequence[torch.Tensor]) -> list[ForwardWeights]:
        """The weights that `dilated_layers` takes, for each sequence."""
        past, now, bias, residual, skip = weights
        past, now, bias = map(self.to_gates, (past, now, bias))
        shared = ForwardWeights(*map(flat, (
            past, now, bias[:, 0], _pad(residual, self.width), _pad(skip, self.skips))))
        return [shared._replace(bias=flat(bias[:, b])) for b in range(self.batch)]

    def backward_weights(self, weights: Sequence[torch.Tensor]) -> BackwardWeights:
        """The weights that `dilated_layers` takes, transposed."""
        past, now, _, residual, skip = weights
        return BackwardWeights(*map(flat, (
            *(_pad(self.to_gates(w).mT, self.width) for w in (past, now)),
            _pad(residual.mT, self.width), _pad(skip.mT, self.width),
            _pad(-residual, self.width))))

    def local_inputs(self, conditioning: Sequence[torch.Tensor],
                     interpolation: Interpolation | None) -> list[LocalInputs]:
        """The frames' inputs (L, B, K, 2p) and the weights (B, T, TAPS), for each sequence."""
        if interpolation is None:
            nothing = np.zeros(0, np.float32)
            return [LocalInputs(nothing, 0, np.zeros(0, np.int64), nothing)] * self.batch
        count = conditioning[0].shape[2]
        frames, weights = self.to_gates(conditioning[0]), conditioning[1]
        first = interpolation.frames.clamp(0, count - TAPS)
        return [LocalInputs(flat(frames[:, b]), count, flat(first[b]), flat(weights[b]))
                for b in range(self.batch)]


class _CompiledLayers(torch.autograd.Function):

    @staticmethod
    def forward(ctx, passes, workspace, dropout, needs_grad, interpolation, x, *tensors):
        weights, local = passes.forward_weights(tensors[:5]), passes.local_inputs(
            tensors[5:], interpolation)
        size = passes.rows * passes.width
        columns = x.new_empty(passes.batch, size)
        sums = x.new_zeros(passes.batch, passes.outputs * passes.skips)
        kept = passes.kept_rows * passes.gates if needs_grad else 0
        activations = workspace.take(x, passes.batch, kept)
        buffers, x = passes.slots(2 * size), _pad(x.transpose(0, 1), passes.width)
        if passes.count == 1:
            columns.copy_(x.reshape(passes.batch, size))
        x = flat(x).reshape(passes.batch, size)
        random = _dropout(dropout, passes.batch)

        def call(b, owner, thread, threads, barrier):
            buffer = buffers[passes.slot(owner, threads)]
            dilated_forward.forward(
                passes.plan, weights[b], local[b], random[b], x[b], buffer, flat(columns[b]),
                flat(activations[b]), flat(sums[b]), needs_grad, thread, threads, barrier)

        passes.run(call)
        if needs_grad:
            ctx.save_for_backward(columns, activations, *tensors)
            ctx.passes, ctx.workspace, ctx.random = passes, workspace, random
            ctx.interpolation = interpolation
        return sums.view(passes.batch, passes.outputs, -1)[..., :passes.q].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_skips):
        passes = ctx.passes
        columns, activations, *tensors = ctx.saved_tensors
        weights, local = passes.backward_weights(tensors[:5]), passes.local_inputs(
            tensors[5:], ctx.interpolation)
        grad_sums = _pad(grad_skips.transpose(0, 1), passes.skips).contiguous()
        inputs, grad_columns = columns.clone(), torch.zeros_like(columns)
        batch, gates = passes.batch, passes.gates
        threads, layers, p = passes.threads, passes.count, passes.p
        grads = [columns.new_zeros(threads, size) for size in (
            layers * p * gates, layers * p * gates, batch * layers * gates,
            (layers - 1) * p * passes.width, layers * p * passes.skips)]
        grad_frames = columns.new_zeros(batch, local[0].frames.size)
        grad_weights = columns.new_zeros(batch, local[0].weights.size)
        grad_gates = passes.slots(2 * passes.rows * gates)

        def call(b, owner, thread, threads, barrier):
            own = Gradients(*(flat(grad[owner]) for grad in grads))
            own = own._replace(bias=own.bias.reshape(batch, -1)[b])
            dilated_backward.backward(
                passes.plan, weights, local[b], ctx.random[b], flat(inputs[b]),
                flat(activations[b]), flat(grad_sums[b]), flat(grad_columns[b]),
                grad_gates[passes.slot(owner, threads)], own, flat(grad_frames[b]),
                flat(grad_weights[b]), thread, threads, barrier)

        passes.run(call)
        ctx.workspace.give_back(activations)
        past, now, bias, residual, skip = (
            grad.sum(0).view(shape) for grad, shape in zip(grads, (
                (layers, p, gates), (layers, p, gates), (batch, layers, gates),
                (layers - 1, p, passes.width), (layers, p, passes.skips)), strict=True))
        conditioning = []
        if ctx.interpolation is not None:
            frames = grad_frames.view(batch, layers, -1, gates).transpose(0, 1)
            conditioning = [passes.from_gates(frames), grad_weights.view(batch, -1, TAPS)]
        grad_x = grad_columns.view(batch, passes.rows, -1)[..., :p].transpose(0, 1)
        return (*[None] * 5, grad_x,
                *map(passes.from_gates, (past, now, bias.transpose(0, 1))), residual[..., :p],
                skip[..., :passes.q], *conditioning)


def _dropout(probability: float, batch: int) -> list[Dropout]:
    """Dropout for each sequence, with seeds from torch's generator."""
    kept = HASHES - min(max(round(probability * HASHES), 0), HASHES - 1)
    seeds = torch.randint(2 ** 62, (batch,)).tolist() if probability else [0] * batch
    return [Dropout(kept, np.float32(HASHES / kept), seed) for seed in seeds]


def _pad(x: torch.Tensor, width: int) -> torch.Tensor:
    """x with zeros after its last dimension, up to `width`."""
    return F.pad(x, (0, width - x.shape[-1]))


@cache
def _prepare_forward() -> None:
    """Compile or load the kernel."""
    dilated_forward.cache.prepare("WaveNet's layers", _run_smallest)


@cache
def _prepare_backward() -> None:
    """Compile or load the kernel of the gradients."""
    def call() -> None:
        with torch.enable_grad():
            _run_smallest().sum().backward()

    dilated_backward.cache.prepare("gradients of WaveNet's layers", call)


def _run_smallest() -> torch.Tensor:
    """The forward pass of the smallest network."""
    passes = _Passes(torch.Size((2, 1, 1)), 1, 1, [1])
    weights = [torch.zeros(shape) for shape in (
        (1, 1, 2), (1, 1, 2), (1, 1, 2), (0, 1, 1), (1, 1, 1))]
    x = torch.zeros(2, 1, 1, requires_grad=True)
    return _CompiledLayers.apply(passes, Workspace(), 0.0, True, None, x, *weights)
