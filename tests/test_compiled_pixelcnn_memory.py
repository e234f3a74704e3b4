"""The compiled sampler of images reads and writes what it may, and nothing else."""

import ctypes
import itertools
import os
import platform

import numpy as np
import pytest
import torch
from test_compiled_pixelcnn import Watched, call_in_a_process, drawn, lively
from test_kernels import guarded
from test_sampling_pixelcnn import labels_for

from sampling.compiled.pixelcnn import MARGIN, Compiled


class Poisoned(Watched):
    """Before each row it makes all NaN that the row must not read before it has been computed:
    the picture from there on, and what the row before it left in its work space."""

    def draw_row(self, row, uniforms, temperature, top_p):
        p, blocks, nan = self.weights.p, self.weights.blocks, float("nan")
        for state in self.states:
            images, channels, height, width = state.codes.shape
            picture = state.picture.reshape(images, MARGIN + height, -1, channels)
            picture[:, MARGIN + row:, MARGIN:MARGIN + width] = nan
            state.horizontal.reshape(blocks, images, -1)[:, :, p:] = nan
            for name in ("above", "contexts", "gated", "hidden", "logits", "odds"):
                getattr(state, name)[:] = nan
            before = state.vertical.reshape(-1, images, 2, width + 2, self.weights.features)
            before[:, :, row % 2, 1:-1] = nan  # the row before the last
        super().draw_row(row, uniforms, temperature, top_p)


@pytest.mark.parametrize("widths,channels,blocks,levels,size", [
    ((1, 1), 1, 1, 2, (1, 1)), ((5, 7), 3, 3, 65, (5, 7)), ((33, 16), 3, 2, 64, (4, 3)),
    ((100, 70), 1, 4, 256, (6, 5)), ((200, 130), 3, 2, 100, (3, 2))])
def test_nothing_is_read_before_it_is_computed(widths, channels, blocks, levels, size):
    model = lively(widths, channels, blocks, levels, labels=2)
    expected = drawn(model, range(5), size, labels_for(model, 5), Watched)
    poisoned = drawn(model, range(5), size, labels_for(model, 5), Poisoned)
    assert torch.equal(expected[0], poisoned[0])
    for name in ("logits", "features"):
        assert torch.equal(torch.stack(getattr(expected[1], name)),
                           torch.stack(getattr(poisoned[1], name)))


class Ill(Watched):
    """Before each row it makes all that is known of images 1 and 3 of 7 NaN."""

    def draw_row(self, row, uniforms, temperature, top_p):
        (state,), blocks = self.states, self.weights.blocks
        for name in ("picture", "vertical", "above", "contexts", "horizontal", "gated", "hidden",
                     "logits"):
            parts = {"vertical": blocks - 1, "contexts": blocks, "horizontal": blocks,
                     "gated": blocks}.get(name, 1)
            getattr(state, name).reshape(parts, 7, -1)[:, 1:4:2] = float("nan")
        state.odds[:] = float("nan")
        super().draw_row(row, uniforms, temperature, top_p)


@pytest.mark.parametrize("widths,channels", [((5, 7), 3), ((33, 40), 3), ((100, 70), 1)])
def test_an_image_leaves_its_neighbours_alone(widths, channels):
    model = lively(widths, channels, blocks=3, levels=65, labels=3)
    expected, before = drawn(model, range(7), (5, 4), labels_for(model, 7), Watched)
    codes, now = drawn(model, range(7), (5, 4), labels_for(model, 7), Ill)
    well = torch.tensor([0, 2, 4, 5, 6])
    assert torch.equal(codes[well], expected[well])
    for name in ("logits", "features"):
        one, other = (torch.stack(getattr(sampler, name), 1) for sampler in (before, now))
        assert torch.equal(one[well], other[well]) and not torch.equal(one, other)
    assert 0 <= codes.min() and codes.max() < 65


def draw_between_guards(end):
    """Draw with all arrays right before (end) or after memory that ends the process if touched."""
    def with_guards(named):
        return named._replace(**{name: guarded(value, end) for name, value in
                                 named._asdict().items() if isinstance(value, np.ndarray)})

    class Guarded(Compiled):
        def __init__(self, model, label, codes, first):
            super().__init__(model, label, codes, 0)
            self.codes, self.weights = codes, with_guards(self.weights)
            self.states = [with_guards(state) for state in self.states]
            self.shares.each(lambda state: self._read(state, first), self.states)

        def draw_row(self, row, uniforms, temperature, top_p):
            uniforms = torch.from_numpy(guarded(uniforms.numpy(), end))
            super().draw_row(row, uniforms, temperature, top_p)
            self.codes[:] = torch.from_numpy(self.states[0].codes)

    for widths, channels, (blocks, levels, size) in itertools.product(
            ((1, 1), (3, 3), (5, 7), (16, 9), (33, 16), (64, 48), (97, 96), (100, 70), (200, 130)),
            (1, 3), ((1, 2, (1, 1)), (2, 64, (3, 2)), (3, 65, (2, 3)))):
        for images in (1, 5) if channels <= min(widths) else ():
            model = lively(widths, channels, blocks, levels, labels=2)
            label = torch.ones(images, dtype=torch.long)
            given = torch.full((images, channels, size[0] // 2, size[1]), levels - 1)
            codes, same = (drawn(model, range(images), size, label, sampler, given=given,
                                 top_p=0.5)[0] for sampler in (Compiled, Guarded))
            assert torch.equal(codes, same)


def leave_guarded_memory(end):
    """What `guarded` does to a process that reads a byte too far: the number of its signal."""
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
