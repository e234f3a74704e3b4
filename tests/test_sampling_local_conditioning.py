"""Sound conditioned on frames of features: all samplers draw what the plain network draws."""

import pytest
import torch
import torch.nn.functional as F
from test_compiled_wavenet import Stepwise
from test_sampling_wavenet import labels_for, network

from models.local_conditioning import Frames
from sampling import wavenet
from sampling.compiled import wavenet as wavenet_compiled
from sampling.random_streams import RandomStreams
from sampling.wavenet import CachedWaveNetSampler, NaiveWaveNetSampler, sample_sounds


def plain_logits(model, label, prime, codes, values):
    """The plain network's logits (B, levels, length) of codes that continue a prime (B, P)."""
    field, hop = model.config.receptive_field, model.config.hop
    context = F.pad(torch.cat((prime, codes), dim=1), (field, 0),
                  value=model.config.levels // 2)[:, :-1]
    before = field // hop + 4
    valid = F.pad(torch.ones(values.shape[:2], dtype=torch.bool), (before, 4))
    frames = Frames(F.pad(values, (0, 0, before, 4)), valid,
                    torch.full((len(codes),), before * hop - field))
    with torch.no_grad():
        return model(context, label, frames)[:, :, prime.shape[1]:]


CASES = [dict(hop=1, stacks_num=1, layers_num=1), dict(hop=7, stacks_num=2, layers_num=3),
         dict(hop=40, stacks_num=1, layers_num=5, labels=2),
         dict(hop=100, stacks_num=2, layers_num=4, hidden_dim=33, out_hidden_dim=7)]


@pytest.mark.parametrize("streams, prime_length", [(1, 0), (1, 1), (3, 2), (12, 5), (1, "field"),
                                             (3, 200), (12, 0)])
@pytest.mark.parametrize("config", CASES, ids=str)
def test_all_samplers_have_the_plain_networks_logits(config, streams, prime_length, record_logits,
                                                     monkeypatch):
    monkeypatch.setattr(wavenet, "MAX_CHUNK", 64)  # several chunks
    model = network(features=3, **config)
    if prime_length == "field":
        prime_length = model.config.receptive_field
    length, label = 150, labels_for(model, streams)
    torch.manual_seed(1)
    count = -(-(prime_length + length) // model.config.hop)
    values = torch.randn(streams, count, 3, dtype=torch.float64)
    prime = torch.randint(16, (streams, prime_length))
    seen, made = record_logits(), []

    def stepwise(*args):
        made.append(Stepwise(*args))
        return made[-1]

    for sampler in (NaiveWaveNetSampler, CachedWaveNetSampler, stepwise):
        seen.clear()
        used = model.float() if sampler is stepwise else model.double()
        if sampler is NaiveWaveNetSampler and length * streams * len(model.layers) > 3000:
            continue
        codes = torch.cat([*sample_sounds(used, RandomStreams(0, range(streams)), label, length,
                                          prime=prime, sampler=sampler, frames=values)], dim=1)
        logits = torch.stack(made[-1].seen if sampler is stepwise else seen, dim=2)
        expected = plain_logits(model.double(), label, prime, codes, values)
        torch.testing.assert_close(logits.double(), expected, rtol=1e-4,
                                   atol=1e-3 if sampler is stepwise else 1e-8)


def test_changed_frames_change_the_sound_around_them_only():
    model = network(features=2, hop=10, layers_num=3, stacks_num=1).float()
    values = torch.randn(1, 20, 2)
    other = values.clone()
    other[:, 12:] += 1

    def draw(values):
        return torch.cat([*sample_sounds(model, RandomStreams(0, [0]), None, 200, frames=values)],
                         dim=1)[0]

    assert torch.equal(draw(values), draw(values))
    differ = (draw(values) != draw(other)).nonzero()[:, 0]
    # The first affected sample lies up to three frames and a half before the changed frame.
    assert 12 * 10 - 40 <= differ[0] < 140


@pytest.mark.parametrize("sampler", [NaiveWaveNetSampler, CachedWaveNetSampler,
                                     wavenet_compiled.CompiledWaveNetSampler])
def test_too_few_frames_are_refused(sampler):
    model = network(features=2, hop=10, layers_num=2, stacks_num=1).float()
    for length in (None, 21):
        with pytest.raises(ValueError, match="2 frames are not enough"):
            next(sample_sounds(model, RandomStreams(0, [0]), None, length, sampler=sampler,
                               frames=torch.zeros(1, 2, 2)))


def test_batch_and_threads_change_no_bit():
    model = network(features=3, hop=9, layers_num=4, stacks_num=2).float()
    values = torch.randn(5, 60, 3)

    def draw(streams, **options):
        return torch.cat([*sample_sounds(model, RandomStreams(0, streams), None, 500,
                                         frames=values[streams], **options)], dim=1)

    together = draw([0, 1, 2, 3, 4])
    torch.set_num_threads(3)
    assert torch.equal(draw([0, 1, 2, 3, 4]), together)
    for stream in range(5):
        assert torch.equal(draw([stream])[0], together[stream])


@pytest.mark.parametrize("sampler", [NaiveWaveNetSampler, CachedWaveNetSampler,
                                     wavenet_compiled.CompiledWaveNetSampler])
def test_sounds_of_different_lengths_equal_each_alone(sampler):
    model = network(features=3, hop=9, layers_num=3, stacks_num=2)
    model = model.float() if sampler is wavenet_compiled.CompiledWaveNetSampler else model.double()
    counts = [20, 1, 13, 7]
    values = [torch.randn(count, 3, dtype=model.logits.weight.dtype) for count in counts]

    def draw(streams, length):
        return torch.cat([*sample_sounds(model, RandomStreams(0, streams), None, length,
                                         sampler=sampler,
                                         frames=[values[stream] for stream in streams])], dim=1)

    together = draw(range(4), 20 * 9)
    for stream, count in enumerate(counts):
        assert torch.equal(draw([stream], count * 9)[0], together[stream, :count * 9])
