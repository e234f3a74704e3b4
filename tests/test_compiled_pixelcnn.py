"""The compiled PixelCNN sampler draws what the plain network draws, in any batch."""

import os
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.core.codegen import get_host_cpu_features
from test_categorical import check_samples
from test_sampling_pixelcnn import labels_for, network

from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.pixelcnn import NaivePixelCNNSampler, sample_images
from sampling.random_streams import RandomStreams

HERE = Path(__file__).resolve().parent


def sensitive_network(widths, channels=1, blocks=2, levels=4, labels=0, seed=2, vector=0,
                      position=None, embedding=0):
    """A network in single precision that depends on its past, with logits of order 1 to 10.

    position: by default in networks wide enough to depend on their past even then.
    """
    position = widths[0] >= 4 if position is None else position
    model = network(seed, gain=3, hidden_dim=widths[0], out_hidden_dim=widths[1],
                    channels=channels, blocks_num=blocks, levels=levels, labels=labels,
                    vector=vector, position=position, embedding=embedding)
    with torch.no_grad():
        if position:  # larger inputs would close the gates
            for layer in model.blocks[0].position.children():
                layer.weight /= 9
        if widths[0] < 4:  # so few rectifiers might all be closed
            model.blocks[-1].out.bias += 2
            model.hidden.weight.abs_()
            model.hidden.bias.abs_()
    return model.float()


def drawn(model, streams, size, label=None, sampler=CompiledPixelCNNSampler, seed=5, **options):
    """The codes of these streams' images, and the sampler that drew them."""
    made = []

    def begin(*args):
        made.append(sampler(*args))
        return made[-1]

    return sample_images(model, RandomStreams(seed, streams), label, *size, sampler=begin,
                         **options), made[0]


class RecordingSampler(CompiledPixelCNNSampler):
    """Records each row's results.

    logits: [(B, levels), …] of each row's last sub-pixel. features: [(B, L, p), …] of its last
    pixel, the horizontal stack's after each block, the last ones after their ReLU.
    """

    def __init__(self, model, label, codes, first):
        super().__init__(model, label, codes, first)
        self.logits, self.features = [], []

    def draw_row(self, row, uniforms, temperature, top_p):
        super().draw_row(row, uniforms, temperature, top_p)
        p, blocks, levels = self.weights.p, self.weights.blocks, self.weights.levels
        logits, features = [], []
        for state in self.states:
            images = len(state.codes)
            logits.append(state.logits.reshape(images, -1)[:, :levels].copy())
            pixel = state.horizontal.reshape(1 + blocks, images, -1)[1:, :, :p]
            features.append(pixel.swapaxes(0, 1).copy())
        self.logits.append(torch.from_numpy(np.concatenate(logits)))
        self.features.append(torch.from_numpy(np.concatenate(features)))


@torch.no_grad()
def plain(model, codes, label):
    """The plain network's logits (B, levels, C, H, W) in double precision, and the horizontal
    features (B, L, H, W, p) after each block, the last ones after their ReLU."""
    features, model = [], deepcopy(model).double()
    for block in model.blocks:
        block.register_forward_hook(
            lambda block, inputs, outputs: features.append(outputs[1][:, :, 1:]))
    logits = model(codes, label)
    features[-1] = features[-1].relu()
    return logits, torch.stack(features, dim=1)


def case(widths, channels, blocks, levels, size, images, labels=0, prefix=0, threads=1,
         temperature=1.0, top_p=1.0, vector=0):
    name = (f"{widths}-{channels}x{blocks}-{levels}-{size}-{images}images-{labels}labels-"
            f"{prefix}rows-{threads}threads-{temperature}-{top_p}-{vector}").replace(" ", "")
    return pytest.param(widths, channels, blocks, levels, size, images, labels, vector, prefix,
                        threads, (temperature, top_p), id=name)


CASES = [
    # The smallest sizes, alone and together.
    case((1, 1), 1, 1, 2, (1, 1), 1),
    case((1, 1), 1, 2, 2, (9, 1), 2, labels=1, threads=2),
    case((1, 1), 1, 3, 1024, (1, 9), 5),
    case((1, 1), 1, 5, 3, (8, 8), 9, labels=4, prefix=5),
    case((3, 3), 3, 1, 2, (1, 1), 4, labels=2),
    case((3, 3), 3, 2, 64, (9, 1), 3, prefix=1, threads=3),
    case((3, 3), 3, 5, 65, (2, 3), 1, prefix=1),
    # Images one pixel wide, to compare the logits of all sub-pixels.
    case((33, 16), 1, 3, 256, (9, 1), 5, prefix=2, labels=2),
    case((200, 200), 1, 5, 1024, (9, 1), 4),
    # Widths around a vector's, alone and in groups of three.
    case((5, 7), 3, 3, 4, (3, 2), 9, labels=3),
    case((5, 7), 1, 2, 65, (13, 29), 2, top_p=0.5),
    case((32, 32), 1, 1, 256, (8, 8), 3, labels=2, temperature=0.3),
    case((32, 32), 3, 2, 3, (8, 8), 5, prefix=5, threads=2),
    case((33, 16), 3, 2, 64, (13, 29), 1, top_p=0.5, temperature=0.3),
    case((64, 48), 1, 3, 4, (13, 29), 5, labels=5, threads=3),
    case((64, 48), 3, 5, 256, (8, 8), 4, prefix=2, labels=3),
    case((96, 99), 3, 2, 128, (2, 9), 2),
    case((97, 96), 3, 3, 129, (3, 2), 9, prefix=1, threads=4),
    case((100, 70), 3, 3, 65, (2, 3), 9, labels=9),
    case((100, 70), 1, 2, 1024, (8, 8), 1, temperature=3),
    case((128, 16), 1, 5, 2, (13, 29), 4, prefix=5),
    case((128, 16), 3, 1, 4, (1, 9), 3, temperature=3, top_p=0.5),
    case((193, 100), 3, 2, 3, (3, 5), 5, labels=2),
    case((200, 200), 3, 5, 1024, (3, 2), 2, prefix=2),
    # Vectors instead of labels.
    case((1, 1), 1, 1, 2, (3, 3), 2, vector=1),
    case((33, 16), 3, 3, 64, (3, 2), 5, vector=10, threads=2),
    case((64, 48), 1, 2, 4, (8, 8), 4, vector=300, prefix=3),
    # Extreme temperatures and top_p.
    case((33, 16), 3, 3, 64, (3, 2), 2, temperature=0),
    case((64, 48), 1, 2, 256, (8, 8), 9, labels=3, temperature=0, top_p=0.5),
    case((32, 32), 3, 3, 65, (2, 3), 4, top_p=1e-6),
    case((5, 7), 3, 2, 2, (8, 8), 5, temperature=0.3, top_p=1e-6, prefix=1),
    case((100, 70), 1, 1, 4, (8, 8), 2, temperature=3, top_p=0.5, labels=2),
]


@pytest.mark.parametrize(
    "widths,channels,blocks,levels,size,images,labels,vector,rows,threads,options", CASES)
def test_equals_the_plain_network(widths, channels, blocks, levels, size, images, labels, vector,
                                  rows, threads, options):
    """Features and logits are within 1e-4; the same random numbers give the same codes."""
    torch.set_num_threads(threads)
    model = sensitive_network(widths, channels, blocks, levels, labels, vector=vector)
    label = labels_for(model, images)
    label = None if label is None else label.flip(0)
    height, width = size
    prefix = torch.randint(levels, (images, channels, rows, width))
    codes, sampler = drawn(model, range(images), size, label, RecordingSampler, prefix=prefix,
                           temperature=options[0], top_p=options[1])
    assert codes.shape == (images, channels, *size) and codes.dtype == torch.long
    assert torch.equal(codes[:, :, :rows], prefix)
    logits, features = plain(model, codes, label)
    last = logits[:, :, -1, rows:, -1].permute(2, 0, 1)
    assert (torch.stack(sampler.logits) - last).abs().max() < 1e-4
    assert (torch.stack(sampler.features, dim=2) - features[:, :, rows:, -1]).abs().max() < 1e-4
    # In the order of the random numbers: (B, H, W, C).
    uniforms = RandomStreams(5, range(images)).next_uniforms((height - rows) * width * channels)
    logits = logits[:, :, :, rows:].permute(0, 3, 4, 2, 1)
    check_samples(codes[:, :, rows:].permute(0, 2, 3, 1).flatten(), uniforms.flatten(), *options,
                 logits.flatten(0, 3), within=1e-5)
    if height * width > 2:  # enough for the past to differ
        assert logits.std((0, 1, 2)).max() > 0.05


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("widths,channels,blocks,labels,size,options", [
    ((1, 1), 1, 2, 0, (3, 2), dict()),
    ((5, 7), 3, 3, 2, (4, 5), dict()),
    ((33, 16), 3, 2, 0, (3, 4), dict(temperature=0.3, top_p=0.5)),
    ((64, 48), 1, 3, 3, (7, 6), dict(top_p=0.5)),
    ((100, 70), 3, 1, 2, (3, 3), dict(temperature=0)),
    ((16, 9), 3, 4, 0, (3, 4), dict(temperature=3)),
])
def test_equals_naive(widths, channels, blocks, labels, size, options, rows, position):
    """The codes equal those of the naive sampler in double precision."""
    model = sensitive_network(widths, channels, blocks, levels=10, labels=labels, position=position)
    label = labels_for(model, 5)
    options = {**options, "prefix": torch.randint(10, (5, channels, rows, size[1]))}
    naive, _ = drawn(deepcopy(model).double(), range(5), size, label, NaivePixelCNNSampler,
                     **options)
    codes, _ = drawn(model, range(5), size, label, **options)
    assert torch.equal(codes, naive)


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("channels, blocks, embedding", [(1, 1, 1), (1, 3, 16), (3, 2, 5)])
def test_embedded_codes_are_read_as_in_the_plain_network(channels, blocks, embedding, rows):
    model = sensitive_network((24, 16), channels, blocks, levels=10, labels=2, embedding=embedding)
    options = {"prefix": torch.randint(10, (5, channels, rows, 5))}
    label = labels_for(model, 5)
    naive, _ = drawn(deepcopy(model).double(), range(5), (5, 5), label, NaivePixelCNNSampler,
                     **options)
    codes, _ = drawn(model, range(5), (5, 5), label, **options)
    assert torch.equal(codes, naive)
    model.embed_code.weight.data.neg_()  # what is embedded matters
    other, _ = drawn(model, range(5), (5, 5), label, **options)
    assert not torch.equal(codes, other)


@pytest.mark.parametrize("model,size", [
    (sensitive_network((5, 7), channels=3, blocks=3, levels=65, labels=4), (5, 7)),
    (sensitive_network((33, 16), channels=3, levels=256), (4, 3)),
    (sensitive_network((1, 1), blocks=1), (1, 1)),
    (sensitive_network((70, 48), channels=1, levels=1024, labels=3), (3, 5)),
    (sensitive_network((32, 16), channels=3, levels=4, vector=100), (4, 3))],
    ids=["5", "33", "1", "70", "vector"])
def test_an_image_is_the_same_in_any_batch(model, size):
    """In a batch of any size, at any place, on any number of threads, to the last bit."""
    label = labels_for(model, 13)
    prefix = torch.randint(model.config.levels, (13, model.config.channels, size[0] // 2, size[1]))

    def of(streams):
        streams = list(streams)
        codes, sampler = drawn(model, streams, size, None if label is None else label[streams],
                               RecordingSampler, prefix=prefix[streams])
        return codes, torch.stack(sampler.logits, 1), torch.stack(sampler.features, 1)

    whole = of(range(13))
    if size != (1, 1):
        assert len({image.numpy().tobytes() for image in whole[0]}) == 13
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        for streams in ([4], [12, 0], range(3), range(2, 6), range(5), range(12, 5, -1),
                        range(1, 9), range(9), range(13)):
            for some, every in zip(of(streams), whole, strict=True):
                assert torch.equal(some, every[list(streams)])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_completes_its_own_prefix(channels):
    """With any number of its own first rows as the prefix, the rest is equal to the last bit."""
    model = sensitive_network((33, 16), channels, blocks=4, levels=64, labels=2)
    label, called = labels_for(model, 5), []
    codes, sampler = drawn(model, range(5), (11, 6), label, RecordingSampler)
    for rows in range(12):
        streams = RandomStreams(5, range(5))
        streams.next_uniforms(rows * 6 * channels)
        called.clear()
        made = []

        def begin(*args, made=made):
            made.append(RecordingSampler(*args))
            return made[0]

        again = sample_images(model, streams, label, 11, 6, prefix=codes[:, :, :rows],
                              sampler=begin, on_row=lambda: called.append(1))
        assert torch.equal(again, codes) and len(called) == 11 - rows
        assert len(made[0].logits) == 11 - rows
        for now, before in zip(made[0].logits, sampler.logits[rows:], strict=True):
            assert torch.equal(now, before)


# ------------------------------------------------------------------------------ arguments

def test_invalid_labels_and_codes_are_refused():
    model = sensitive_network((5, 7), labels=3)
    for label in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match="labels"):
            drawn(model, range(2), (2, 2), torch.tensor(label))
    for code in (-1, 4):
        with pytest.raises(IndexError, match="codes"):
            drawn(model, range(2), (2, 2), torch.tensor([0, 1]),
                  prefix=torch.full((2, 1, 1, 2), code))
    with pytest.raises(TypeError):
        drawn(model, range(2), (2, 2), None)


def test_labels_of_any_integer_type_and_layout():
    model = sensitive_network((5, 7), labels=3)
    expected, _ = drawn(model, range(6), (4, 4), torch.tensor([2, 2, 2, 1, 1, 1]))
    for dtype in (torch.int32, torch.uint8):
        codes, _ = drawn(model, range(6), (4, 4), torch.tensor([2, 2, 2, 1, 1, 1], dtype=dtype))
        assert torch.equal(codes, expected)
    codes, _ = drawn(model, range(3), (4, 4), torch.tensor([2]).expand(3))
    assert torch.equal(codes, expected[:3])
    without = sensitive_network((5, 7))
    assert torch.equal(*(drawn(without, range(3), (4, 4), label)[0]
                         for label in (None, torch.tensor([7, 8, 9]))))


def test_a_samplers_threads_end_with_it():
    torch.set_num_threads(2)
    model, running = sensitive_network((5, 7)), threading.active_count()
    for _ in range(20):
        drawn(model, range(3), (2, 2))
    assert threading.active_count() <= running + 2


def call_in_a_process(code, **environment):
    return subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(HERE.parent), **environment})


@pytest.mark.slow
@pytest.mark.skipif("+avx2" not in get_host_cpu_features(), reason="for processors with AVX2")
def test_on_a_processor_without_avx512(tmp_path):
    """The same tests with shorter vectors; only the first use announces compilation."""
    shorter = dict(NUMBA_CPU_NAME="haswell", NUMBA_CACHE_DIR=str(tmp_path), NUMBA_CPU_FEATURES=(
        "+avx,+avx2,+fma,+sse4.2,+bmi,+bmi2,+popcnt,+f16c"))
    code = ("import test_compiled_pixelcnn as it; from models.kernels.vectors import TILE; "
            "it.drawn(it.sensitive_network((5, 7)), range(2), (2, 2)); print(TILE)")
    for said in ("compiling the PixelCNN sampler for this processor, once\n", ""):
        done = call_in_a_process(code, **shorter)
        assert (done.returncode, done.stdout, done.stderr) == (0, "16\n", said)
    done = call_in_a_process(
        "import pytest, sys; sys.exit(pytest.main(['-q', '-x', '-m', 'not slow', "
        "'test_compiled_pixelcnn.py', 'test_compiled_pixelcnn_memory.py']))", **shorter)
    assert done.returncode == 0, done.stdout
