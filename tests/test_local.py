"""Local conditioning of a WaveNet: which frame conditions which sample; equality to autograd."""

import pytest
import torch
import torch.nn.functional as F
from test_wavenet import labels_for, network, sounds
from test_wavenet_training import assert_same_gradients

from datasets.batches import Frames
from models import dilated
from models.local import MARGIN, REACH, TAPS, FrameNetwork, linear_interpolation


def frames_for(codes, config, begins, length=None):
    """Frames of sequences whose first codes are samples number `begins` of their recordings.

    Those before a recording, and after its `length` samples, are not real.
    """
    hop, T = config.hop, codes.shape[1]
    count = T // hop + 2 + 2 * MARGIN
    generator = torch.Generator().manual_seed(1)
    covering = [begin // hop for begin in begins]
    number = torch.tensor(covering)[:, None] - MARGIN + torch.arange(count)
    last = float("inf") if length is None else -(-length // hop)
    real = (number >= 0) & (number < last)
    values = torch.randn(len(begins), count, config.features, dtype=torch.float64,
                         generator=generator)
    offset = torch.tensor(begins) - (torch.tensor(covering) - MARGIN) * hop
    return Frames(values * real[..., None], real, offset)


def conditioning(model, layer, frames, times, first):
    """What a layer's gates are given of the frames, by the definition: (B, times, 2p).

    A column for each of so many samples, from number `first` of the sequence's codes on.
    """
    network, hop = model.frames, model.config.hop
    rows = []
    for values, real, offset in zip(*frames, strict=True):
        values = (values - network.mean) / network.deviation * real[:, None]
        h = F.pad(values, (0, 0, REACH, REACH)).unfold(0, 2 * REACH + 1, 1)  # (K, F, width)
        h = F.relu(torch.einsum("kfw,cfw->kc", h, network.convolution.weight)
                   + network.convolution.bias) * real[:, None]
        row = []
        for sample in range(first + int(offset), first + int(offset) + times):
            frame, place = divmod(sample, hop)
            before = frame - 1 if (place + 0.5) / hop < 0.5 else frame
            mixed = sum(network.proportions[place, tap] * h[before + tap] for tap in range(TAPS))
            row.append(layer.local(mixed * real[frame]))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def plain(model, codes, label, frames):
    """The network by ordinary operations, layer by layer, on all the codes."""
    x = model.embed(F.pad(codes, (1, 0), value=0)[:, :-1], codes)  # of sequence starts, see below
    x[:, 0] = model.embed(codes[:, 0], codes[:, 0])  # before a sequence its first code is repeated
    skips = 0
    for layer, d in zip(model.layers, model.dilations, strict=True):
        past = torch.cat((x[:, :1].expand(-1, d, -1), x), dim=1)[:, :-d]
        local = conditioning(model, layer, frames, codes.shape[1], 1)
        x, skip = layer(past, x, label, local)
        skips = skips + skip
    return model.output(skips).mT[:, :, model.config.receptive_field - 1:]


@pytest.mark.parametrize("piece", [3, 2048])
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("hop, stacks_num, layers_num", [(1, 1, 2), (3, 2, 3), (10, 1, 4),
                                                         (40, 2, 2)])
def test_outputs_and_all_gradients_are_those_of_plain_autograd(
        hop, stacks_num, layers_num, labels, piece, monkeypatch):
    monkeypatch.setattr(dilated, "PIECE", piece)
    model = network(levels=6, stacks_num=stacks_num, layers_num=layers_num, labels=labels,
                    features=4, hop=hop)
    model.frames.standardize(torch.randn(4), torch.rand(4) + 0.5)
    size = model.config.receptive_field
    for begins in ([0], [7 * hop + 1, hop - 1, 12]):
        codes = sounds(len(begins), size + 12, model.config)
        label = labels_for(len(begins), model.config) if labels else None
        frames = frames_for(codes, model.config, begins, begins[0] + size + 9)
        assert_same_gradients(model, model(codes, label, frames),
                              plain(model, codes, label, frames))


@pytest.mark.parametrize("hop", [2, 5, 30])
def test_after_silence_nothing_is_computed_that_is_constant(hop):
    """A window that begins before its recording: equal to the network on all of its silence."""
    model = network(levels=6, stacks_num=2, layers_num=3, features=2, hop=hop)
    size = model.config.receptive_field
    for silent in (0, 1, 2, size - 1, size):
        codes = sounds(2, size + 6, model.config)
        codes[:, :silent + 4] = 3  # the recording itself may begin with the same code
        frames = frames_for(codes, model.config, [-silent, -silent])
        torch.testing.assert_close(model(codes, None, frames), plain(model, codes, None, frames),
                                   rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hop", [1, 4, 9])
def test_the_frame_that_conditions_a_sample_is_the_one_that_covers_it(hop):
    """At both ends of a recording too: with proportions of 1, no sample follows another frame."""
    model = network(levels=5, stacks_num=1, layers_num=1, features=1, hop=hop)
    size, length = model.config.receptive_field, 7 * hop - hop // 2  # the last frame covers less
    with torch.no_grad():
        covering = (torch.arange(hop) + 0.5) / hop < 0.5  # the second of the two that are mixed
        model.frames.proportions.copy_(torch.stack((~covering, covering), dim=1))
        model.frames.convolution.weight[..., :REACH] = 0
        model.frames.convolution.weight[..., REACH + 1:] = 0
        model.frames.convolution.weight.abs_()
        model.frames.convolution.bias.abs_()
        for layer in model.layers:
            layer.past.weight.zero_()  # an output then depends on one column's conditioning
    codes = sounds(1, size + length - 1, model.config)
    frames = frames_for(codes, model.config, [-size], length)
    frames = frames._replace(values=frames.values.abs() * frames.real[..., None] + 0.1)
    frames.values.requires_grad_()
    logits = model(codes, None, frames)
    assert logits.shape[2] == length
    first = int(frames.real[0].to(torch.uint8).argmax())
    for sample in range(length):
        grad, = torch.autograd.grad(logits[0, :, sample].square().sum(), frames.values,
                                    retain_graph=True)
        touched = grad[0, :, 0].nonzero()[:, 0].tolist()
        assert touched == [first + sample // hop]


def test_interpolation_begins_linear_between_the_middles_of_frames():
    for hop in (1, 4, 5):
        places = torch.arange(hop) + 0.5
        first = torch.where(places < hop / 2, -hop / 2, hop / 2)  # the middle of the first frame
        middles = torch.stack((first, first + hop), dim=1)  # frames that say where they are
        proportions = linear_interpolation(hop)
        torch.testing.assert_close((proportions * middles).sum(1), places)
        assert proportions.min() >= 0


def test_an_empty_share_of_a_batch_has_a_gradient_for_every_weight():
    model = network(levels=5, stacks_num=1, layers_num=2, features=3, hop=4)
    codes = sounds(1, model.config.receptive_field + 3, model.config)
    frames = Frames(*(part[:0] for part in frames_for(codes, model.config, [0])))
    model(codes[:0], None, frames).sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_no_output_depends_on_codes_that_come_after_it():
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


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="--hop 0"):
        network(features=3)
    assert FrameNetwork(3, 4, 7).proportions.shape == (7, TAPS)
