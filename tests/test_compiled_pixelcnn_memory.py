"""The compiled PixelCNN sampler reads and writes only the memory that it may."""

import ctypes
import itertools
import os
import platform

import numpy as np
import pytest
import torch
from test_compiled_pixelcnn import RecordingSampler, call_in_a_process, drawn, sensitive_network
from test_products import guarded
from test_sampling_pixelcnn import labels_for

from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.compiled.pixelcnn_kernels import PADDING


class Poisoned(RecordingSampler):
    """Before each row, fills everything that the row must not read with NaN: the image from that
    row on, and what the previous row left in the buffers."""

    def draw_row(self, row, uniforms, temperature, top_p):
        nan = float("nan")
        for state in self.states:
            images, channels, height, width = state.codes.shape
            image = state.image.reshape(images, PADDING + height, -1, channels)
            image[:, PADDING + row:, PADDING:PADDING + width] = nan
            for name in ("above", "contexts", "gates", "horizontal", "hidden", "logits"):
                getattr(state, name)[:] = nan
            for buffer in state.buffers:
                buffer[:] = nan
            state.gated[state.gated != 1] = nan  # all but the inputs of the biases
            before = state.vertical.reshape(-1, images, 2, width + 2, self.weights.features)
            before[:, :, row % 2, 1:-1] = nan  # two rows above
        super().draw_row(row, uniforms, temperature, top_p)


@pytest.mark.parametrize("widths,channels,blocks,levels,size", [
    ((1, 1), 1, 1, 2, (1, 1)), ((5, 7), 3, 3, 65, (5, 7)), ((33, 16), 3, 2, 64, (4, 3)),
    ((100, 70), 1, 4, 256, (6, 5)), ((200, 130), 3, 2, 100, (3, 2))])
def test_nothing_is_read_before_it_is_computed(widths, channels, blocks, levels, size):
    model = sensitive_network(widths, channels, blocks, levels, labels=2)
    expected = drawn(model, range(5), size, labels_for(model, 5), RecordingSampler)
    poisoned = drawn(model, range(5), size, labels_for(model, 5), Poisoned)
    assert torch.equal(expected[0], poisoned[0])
    for name in ("logits", "features"):
        assert torch.equal(torch.stack(getattr(expected[1], name)),
                           torch.stack(getattr(poisoned[1], name)))


class PartlyPoisoned(RecordingSampler):
    """Before each row, fills the state of images 1 and 3 of 7 with NaN."""

    def draw_row(self, row, uniforms, temperature, top_p):
        (state,), blocks = self.states, self.weights.blocks
        width = state.codes.shape[3]
        for name in ("image", "vertical", "contexts", "gates", "horizontal", "gated", "hidden",
                     "logits"):
            parts = {"vertical": blocks - 1, "contexts": blocks * width, "gates": blocks,
                     "horizontal": 1 + blocks, "gated": blocks}.get(name, 1)
            getattr(state, name).reshape(parts, 7, -1)[:, 1:4:2] = float("nan")
        state.above[:] = state.buffers.probs[:] = float("nan")
        super().draw_row(row, uniforms, temperature, top_p)


@pytest.mark.parametrize("widths,channels", [((5, 7), 3), ((33, 40), 3), ((100, 70), 1)])
def test_an_image_does_not_affect_the_others(widths, channels):
    model = sensitive_network(widths, channels, blocks=3, levels=65, labels=3)
    expected, before = drawn(model, range(7), (5, 4), labels_for(model, 7), RecordingSampler)
    codes, now = drawn(model, range(7), (5, 4), labels_for(model, 7), PartlyPoisoned)
    others = torch.tensor([0, 2, 4, 5, 6])
    assert torch.equal(codes[others], expected[others])
    for name in ("logits", "features"):
        one, other = (torch.stack(getattr(sampler, name), 1) for sampler in (before, now))
        assert torch.equal(one[others], other[others]) and not torch.equal(one, other)
    assert 0 <= codes.min() and codes.max() < 65


def draw_between_guards(end):
    """Draw with all arrays directly before (end) or after memory that must not be touched."""
    def with_guards(named):
        return named._replace(**{name: guarded(value, end) for name, value in
                                 named._asdict().items() if isinstance(value, np.ndarray)})

    class Guarded(CompiledPixelCNNSampler):
        def __init__(self, model, label, codes, first):
            super().__init__(model, label, codes, 0)
            self.codes, self.weights = codes, with_guards(self.weights)
            self.states = [with_guards(state) for state in self.states]
            self.shards.run(lambda state: self._read_rows(state, first), self.states)

        def draw_row(self, row, uniforms, temperature, top_p):
            uniforms = torch.from_numpy(guarded(uniforms.numpy(), end))
            super().draw_row(row, uniforms, temperature, top_p)
            self.codes[:] = torch.from_numpy(self.states[0].codes)

    for widths, channels, (blocks, levels, size) in itertools.product(
            ((1, 1), (3, 3), (5, 7), (16, 9), (33, 16), (64, 48), (97, 96), (100, 70), (200, 130)),
            (1, 3), ((1, 2, (1, 1)), (2, 64, (3, 2)), (3, 65, (2, 3)))):
        for images in (1, 5) if channels <= min(widths) else ():
            model = sensitive_network(widths, channels, blocks, levels, labels=2)
            label = torch.ones(images, dtype=torch.long)
            prefix = torch.full((images, channels, size[0] // 2, size[1]), levels - 1)
            codes, same = (drawn(model, range(images), size, label, sampler, prefix=prefix,
                                 top_p=0.5)[0] for sampler in (CompiledPixelCNNSampler, Guarded))
            assert torch.equal(codes, same)


def leave_guarded_memory(end):
    """The signal that ends a process which reads one byte beyond a guarded array."""
    array = guarded(np.zeros(5, np.float32), end)
    child = os.fork()
    if child == 0:
        ctypes.string_at(array.ctypes.data + (20 if end else -1), 1)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.skipif(platform.system() == "Windows", reason="no memory is guarded there")
def test_no_index_leaves_its_array():
    done = call_in_a_process(
        "import test_compiled_pixelcnn_memory as it\n"
        "for end in (True, False): assert it.leave_guarded_memory(end)\n"
        "for end in (True, False): it.draw_between_guards(end)")
    assert done.returncode == 0 and not done.stderr, done.stderr
