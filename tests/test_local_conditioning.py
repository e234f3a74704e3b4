"""Local conditioning of a WaveNet: which frame conditions which sample; equality with autograd."""

import pytest
import torch
import torch.nn.functional as F
from test_wavenet import labels_for, network, sounds
from test_wavenet_training import assert_same_gradients

from models import dilated
from models.local_conditioning import (
    CONTEXT_FRAMES,
    INTERPOLATION_TAPS,
    MARGIN_FRAMES,
    FrameNetwork,
    Frames,
    linear_interpolation,
)


def frames_for(codes, config, begins, length=None):
    """Frames of sequences whose first codes are the samples `begins` of their recordings.

    Frames before a recording and after its `length` samples are invalid.
    """
    hop, T = config.hop, codes.shape[1]
    count = T // hop + 2 + 2 * MARGIN_FRAMES
    generator = torch.Generator().manual_seed(1)
    covering = [begin // hop for begin in begins]
    number = torch.tensor(covering)[:, None] - MARGIN_FRAMES + torch.arange(count)
    last = float("inf") if length is None else -(-length // hop)
    valid = (number >= 0) & (number < last)
    values = torch.randn(len(begins), count, config.features, dtype=torch.float64,
                         generator=generator)
    offset = torch.tensor(begins) - (torch.tensor(covering) - MARGIN_FRAMES) * hop
    return Frames(values * valid[..., None], valid, offset)


def gate_inputs(model, layer, frames, times, first):
    """What the frames add to a layer's gates, by the definition: (B, times, 2p).

    One column per sample, from sample `first` of the sequence's codes on.
    """
    network, hop = model.frames, model.config.hop
    rows = []
    for values, valid, offset in zip(*frames, strict=True):
        values = (values - network.mean) / network.deviation * valid[:, None]
        padded = F.pad(values, (0, 0, CONTEXT_FRAMES, CONTEXT_FRAMES))
        h = padded.unfold(0, 2 * CONTEXT_FRAMES + 1, 1)  # (K, F, width)
        h = F.relu(torch.einsum("kfw,cfw->kc", h, network.convolution.weight)
                   + network.convolution.bias) * valid[:, None]
        row = []
        for sample in range(first + int(offset), first + int(offset) + times):
            frame, position = divmod(sample, hop)
            before = frame - 1 if (position + 0.5) / hop < 0.5 else frame
            u = sum(network.proportions[position, tap] * h[before + tap]
                    for tap in range(INTERPOLATION_TAPS))
            row.append(layer.local(u * valid[frame]))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def plain(model, codes, label, frames):
    """The network in plain operations, layer by layer, on all codes."""
    # The first code repeats before the sequence.
    x = model.embed(torch.cat((codes[:, :1], codes[:, :-1]), dim=1), codes)
    skips = 0
    for layer, d in zip(model.layers, model.dilations, strict=True):
        past = torch.cat((x[:, :1].expand(-1, d, -1), x), dim=1)[:, :-d]
        local = gate_inputs(model, layer, frames, codes.shape[1], 1)
        x, skip = layer(past, x, label, local)
        skips = skips + skip
    return model.output(skips, codes, codes).mT[:, :, model.config.receptive_field - 1:]


@pytest.mark.parametrize("chunk", [3, 2048])
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("hop, stacks_num, layers_num", [(1, 1, 2), (3, 2, 3), (10, 1, 4),
                                                         (40, 2, 2)])
def test_outputs_and_all_gradients_equal_plain_autograd(
        hop, stacks_num, layers_num, labels, chunk, monkeypatch):
    monkeypatch.setattr(dilated, "CHUNK_COLUMNS", chunk)
    model = network(levels=6, stacks_num=stacks_num, layers_num=layers_num, labels=labels,
                    features=4, hop=hop)
    model.frames.set_normalization(torch.randn(4), torch.rand(4) + 0.5)
    size = model.config.receptive_field
    for begins in ([0], [7 * hop + 1, hop - 1, 12]):
        codes = sounds(len(begins), size + 12, model.config)
        label = labels_for(len(begins), model.config) if labels else None
        frames = frames_for(codes, model.config, begins, begins[0] + size + 9)
        assert_same_gradients(model, model(codes, label, frames),
                              plain(model, codes, label, frames))


@pytest.mark.parametrize("hop", [2, 5, 30])
def test_windows_that_begin_with_silence_equal_the_plain_network(hop):
    """A window that begins before its recording skips the constant columns."""
    model = network(levels=6, stacks_num=2, layers_num=3, features=2, hop=hop)
    size = model.config.receptive_field
    for silence in (0, 1, 2, size - 1, size):
        codes = sounds(2, size + 6, model.config)
        codes[:, :silence + 4] = 3  # the recording itself may begin with the same code
        frames = frames_for(codes, model.config, [-silence, -silence])
        torch.testing.assert_close(model(codes, None, frames), plain(model, codes, None, frames),
                                   rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hop", [1, 4, 9])
def test_the_frame_that_covers_a_sample_conditions_it(hop):
    """With weight 1 for the covering frame, no sample depends on another, also at the ends."""
    model = network(levels=5, stacks_num=1, layers_num=1, features=1, hop=hop)
    size, length = model.config.receptive_field, 7 * hop - hop // 2  # the last frame covers less
    with torch.no_grad():
        covering = (torch.arange(hop) + 0.5) / hop < 0.5  # it is the second of the two frames
        model.frames.proportions.copy_(torch.stack((~covering, covering), dim=1))
        model.frames.convolution.weight[..., :CONTEXT_FRAMES] = 0
        model.frames.convolution.weight[..., CONTEXT_FRAMES + 1:] = 0
        model.frames.convolution.weight.abs_()
        model.frames.convolution.bias.abs_()
        for layer in model.layers:
            layer.past.weight.zero_()  # an output then depends on one column
    codes = sounds(1, size + length - 1, model.config)
    frames = frames_for(codes, model.config, [-size], length)
    frames = frames._replace(values=frames.values.abs() * frames.valid[..., None] + 0.1)
    frames.values.requires_grad_()
    logits = model(codes, None, frames)
    assert logits.shape[2] == length
    first = int(frames.valid[0].to(torch.uint8).argmax())
    for sample in range(length):
        grad, = torch.autograd.grad(logits[0, :, sample].square().sum(), frames.values,
                                    retain_graph=True)
        dependent = grad[0, :, 0].nonzero()[:, 0].tolist()
        assert dependent == [first + sample // hop]


def test_initial_interpolation_is_linear_between_the_centres_of_frames():
    for hop in (1, 4, 5):
        samples = torch.arange(hop) + 0.5
        first = torch.where(samples < hop / 2, -hop / 2, hop / 2)  # the first frame's centre
        centres = torch.stack((first, first + hop), dim=1)  # frames whose value is their centre
        weights = linear_interpolation(hop)
        torch.testing.assert_close((weights * centres).sum(1), samples)
        assert weights.min() >= 0


def test_an_empty_batch_has_a_gradient_for_every_weight():
    model = network(levels=5, stacks_num=1, layers_num=2, features=3, hop=4)
    codes = sounds(1, model.config.receptive_field + 3, model.config)
    frames = Frames(*(part[:0] for part in frames_for(codes, model.config, [0])))
    model(codes[:0], None, frames).sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_no_output_depends_on_later_codes():
    model = network(levels=5, stacks_num=2, layers_num=2, features=3, hop=4)
    size = model.config.receptive_field
    codes = sounds(1, size + 8, model.config)
    frames = frames_for(codes, model.config, [5])
    before = model(codes, None, frames)
    for changed in range(codes.shape[1]):
        other = codes.clone()
        other[0, changed] = (other[0, changed] + 1) % 5
        same = (model(other, None, frames) == before).all(1)[0]
        assert same[:max(changed - size + 1, 0)].all()
        assert changed < size - 1 or not same[changed - size + 1]


def test_frames_without_a_length_or_a_network_are_refused():
    with pytest.raises(ValueError, match="^hop 0"):
        network(features=3)
    model = network()
    codes = sounds(1, model.config.receptive_field, model.config)
    with pytest.raises(ValueError, match="no features"):
        model(codes, None, Frames(torch.zeros(1, 9, 1), torch.ones(1, 9, dtype=torch.bool),
                                  torch.tensor([3])))
    assert FrameNetwork(3, 4, 7).proportions.shape == (7, INTERPOLATION_TAPS)
