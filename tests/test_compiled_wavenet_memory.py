"""The compiled WaveNet sampler uses only the memory that it may, and does not grow."""

import threading
import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch
from test_products import guarded
from test_sampling_wavenet import network

from sampling.compiled.frame_projection import FrameProjection
from sampling.compiled.local_conditioning import no_frames
from sampling.compiled.wavenet_kernels import MAX_LOOKAHEAD, draw, init_state, prefill
from sampling.compiled.wavenet_weights import pack_wavenet, to_bf16
from sampling.local_conditioning import Conditioning
from sampling.random_streams import RandomStreams
from sampling.wavenet import MAX_CHUNK, sample_sounds


def test_memory_and_threads_do_not_grow():
    torch.set_num_threads(2)
    model = network(stacks_num=2, layers_num=3).float()
    chunks = sample_sounds(model, RandomStreams(0, range(3)), None, None)
    sizes = [chunk.shape[1] for chunk in islice(chunks, 30)]
    tracemalloc.start()
    try:
        next(chunks)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        drawn = sum(chunk.shape[1] for chunk in islice(chunks, 200))
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert drawn > 200 * sizes[-1] / 2
    # Buffered random numbers and a chunk's codes are allocated and freed: some 100 KB per stream.
    assert now - before < 3 * 4096 * 8 * 3
    assert peak - before < 3 * (4096 + MAX_CHUNK) * 8 * 6
    running = threading.active_count()
    for _ in range(20):
        next(sample_sounds(model, RandomStreams(0, range(3)), None, None))
    assert threading.active_count() <= running + 2


def placed(arrays, place, blank=False):
    """A named tuple with its arrays moved; blank: floats that are not yet written are NaN."""
    def moved(value):
        if not isinstance(value, np.ndarray):
            return value
        return place(np.full_like(value, np.nan) if blank and value.dtype == np.float32 else value)

    return type(arrays)(*map(moved, arrays))


def local_of(projection, number, samples, place):
    """The frames, moved, of `samples` samples from `number` on; none without a projection."""
    if not projection:
        return no_frames()
    local, = projection.frames(number, samples)
    return placed(local, place)


@pytest.mark.parametrize("precision, hop", [("fp32", 0), ("bf16", 0), ("fp32", 1), ("fp32", 17)])
@pytest.mark.parametrize("widths", [(1, 1), (5, 9), (16, 16), (31, 33), (33, 1), (1, 33), (32, 32),
                                    (64, 64), (48, 100)], ids=str)
def test_kernels_access_only_their_arrays(widths, precision, hop):
    """They also read nothing before it is written. A failure may end the process."""
    for levels, layers, streams, length in ((2, 4, 1, 2), (64, 1, 3, 64), (65, 5, 2, 65),
                                           (16, 7, 4, 66), (64, 3, 5, 131), (65, 4, 8, 3)):
        model = network(levels=levels, stacks_num=2, layers_num=layers, hidden_dim=widths[0],
                        out_hidden_dim=widths[1], labels=2, features=min(hop, 3),
                        hop=hop).float()
        weights = pack_wavenet(model) if precision == "fp32" else to_bf16(pack_wavenet(model))
        state = init_state(weights, np.arange(streams) % 2)
        # Frames for all samples but the last ones.
        values = [torch.randn(max((length + 35) // hop - stream, 1), min(hop, 3))
                  for stream in range(streams)] if hop else None
        projection = None
        if hop:
            projection = FrameProjection(Conditioning(model, values, 0), [slice(streams)])
        codes = np.random.default_rng(0).integers(levels, size=(streams, length))
        columns = np.full((length - 1) * len(state.sums) // streams, np.nan, np.float32)
        uniforms, results = RandomStreams(0, range(streams)).next_uniforms(40).numpy(), []
        for place in (np.copy, lambda array: guarded(array, True),
                      lambda array: guarded(array, False)):
            used, now = placed(weights, place), placed(state, place, place is not np.copy)
            for stream in range(streams):
                prefill(used, now, stream, place(codes[stream]), place(columns),
                         local_of(projection, -1, length - 1, place))
            drawn = [place(np.full((streams, n), -1)) for n in (1, 30, 9)]
            for t, part in zip((0, 1, 31), drawn, strict=True):
                draw(used, now, t, place(np.ascontiguousarray(uniforms[:, t:t + part.shape[1]])),
                     1.0, 0.9, part,
                     local_of(projection, length - 2 + t, part.shape[1] + MAX_LOOKAHEAD,
                              place)._replace(first=length - 2))
            results.append((np.concatenate(drawn, axis=1), now.logits.copy()))
        for drawn, logits in results[1:]:
            assert (drawn == results[0][0]).all() and (logits == results[0][1]).all()
        assert np.isfinite(results[0][1].reshape(streams, -1)[:, :levels]).all()
