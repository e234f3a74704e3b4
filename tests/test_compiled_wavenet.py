"""The compiled WaveNet sampler draws what the plain network draws, in any batch."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from test_categorical import check_samples
from test_sampling_wavenet import labels_for, network, sound

from sampling.compiled.wavenet import CompiledWaveNetSampler
from sampling.compiled.wavenet_kernels import draw, prefill
from sampling.random_streams import RandomStreams
from sampling.wavenet import NaiveWaveNetSampler, round_to_bf16, sample_sounds


class Stepwise(CompiledWaveNetSampler):
    """Draws one sample at a time, and records the logits of all of them: [(B, levels), …]."""

    def __init__(self, model, *args):
        self.levels, self.seen = model.config.levels, []
        super().__init__(model, *args)

    def draw(self, uniforms, temperature, top_p):
        if not uniforms.shape[1]:
            return super().draw(uniforms, temperature, top_p)
        codes = []
        for uniform in uniforms.t():
            codes.append(super().draw(uniform[:, None].contiguous(), temperature, top_p))
            self.seen.append(torch.cat([torch.from_numpy(state.logits.reshape(
                len(state.label), -1)[:, :self.levels].copy()) for state in self.states]))
        return torch.cat(codes, dim=1)


def drawn_stepwise(model, streams, label, length, **options):
    """Codes (B, length), and their logits (B, levels, length)."""
    made = []

    def sampler(*args):
        made.append(Stepwise(*args))
        return made[-1]

    codes = sound(model, streams, label, length, sampler=sampler, **options)
    return codes, torch.stack(made[0].seen, dim=2)


def plain_logits(model, label, prime, codes):
    """The plain network's logits (B, levels, length), in double precision, of codes (B, length)
    that continue a prime (B, P)."""
    config = model.config
    context = F.pad(torch.cat((prime, codes), dim=1), (config.receptive_field, 0),
                  value=config.levels // 2)[:, :-1]
    with torch.no_grad():
        return deepcopy(model).double()(context, label)[:, :, prime.shape[1]:]


def case(stacks, layers, widths, levels, streams, labels=0, prime=0, temperature=1.0, top_p=1.0,
         length=None, threads=1, precision="fp32", seed=0):
    """prime: its length, or a function of the receptive field. length: by default a little more
    than three receptive fields."""
    named = dict(seed=seed, stacks_num=stacks, layers_num=layers, hidden_dim=widths[0],
                 out_hidden_dim=widths[1], levels=levels, labels=labels)
    name = "-".join(map(str, (f"{stacks}x{layers}", f"{widths[0]},{widths[1]}", levels,
                              f"{streams}streams", f"{threads}threads", precision)))
    return pytest.param(named, streams, prime, dict(temperature=temperature, top_p=top_p,
                                                    precision=precision), length, threads, id=name)


CASES = [
    # The smallest sizes, alone and together.
    case(1, 1, (1, 1), 2, 1, length=1),
    case(1, 1, (1, 1), 2, 1, length=2, prime=1),
    case(1, 1, (1, 1), 3, 2, length=300, labels=1, seed=4),
    case(1, 1, (5, 9), 2, 3, labels=2, length=1023, threads=3),
    case(3, 1, (1, 1), 256, 9, labels=2, prime=lambda field: 3 * field, precision="bf16"),
    # Widths around a vector's.
    case(3, 1, (16, 16), 16, 4, labels=2, temperature=0.3, prime=2, length=1024),
    case(1, 6, (31, 33), 64, 1, temperature=1.0, prime=lambda field: field - 1),
    case(2, 4, (32, 32), 65, 5, labels=3, top_p=0.9, threads=2, precision="bf16"),
    case(2, 4, (33, 1), 16, 7, temperature=3, prime=lambda field: field),
    case(2, 4, (1, 33), 16, 8, labels=9, prime=lambda field: field + 1, precision="bf16"),
    case(2, 4, (64, 64), 256, 2, labels=2, temperature=0.3, top_p=0.9, prime=1, length=1025),
    case(1, 6, (48, 100), 1024, 3, top_p=0.5, labels=5, threads=2),
    case(2, 4, (48, 100), 65, 1, prime=lambda field: 3 * field, precision="bf16"),
    case(1, 6, (64, 64), 64, 8, temperature=3, top_p=0.5, threads=4, prime=2, precision="bf16",
         seed=1),
    # Dilations above and below MAX_LOOKAHEAD, and numbers of streams for lookaheads of 8, 4, 2, 1.
    case(1, 9, (5, 9), 16, 1, labels=2, prime=lambda field: field + 1),
    case(1, 9, (5, 9), 16, 2, temperature=3, prime=lambda field: 3 * field),
    case(1, 9, (16, 16), 64, 4, labels=3, prime=2, precision="bf16"),
    case(1, 9, (5, 9), 3, 5, prime=lambda field: field - 1, threads=2),
    case(1, 9, (33, 1), 16, 9, labels=2, temperature=1.0, threads=3, length=2500),
    case(2, 5, (5, 9), 16, 4, labels=3, threads=4, length=2500, top_p=0.9),
    # Extreme temperatures and top_p.
    case(2, 4, (31, 33), 65, 3, temperature=0, prime=lambda field: field),
    case(1, 6, (16, 16), 1024, 4, temperature=0, top_p=0.5, labels=2, precision="bf16"),
    case(3, 1, (5, 9), 256, 7, top_p=1e-6, length=60),
    case(2, 4, (32, 32), 3, 8, temperature=0.3, top_p=0.5, labels=2, threads=3, precision="bf16"),
]


@pytest.mark.parametrize("config,streams,prime_length,options,length,threads", CASES)
def test_equals_the_plain_network(config, streams, prime_length, options, length, threads):
    """Logits are within 1e-4 for the same past, and the same random numbers give the same codes."""
    torch.set_num_threads(threads)
    model, label = network(**config).float(), torch.arange(streams).flip(0)
    label = label % config["labels"] if config["labels"] else None
    field = model.config.receptive_field
    length = 3 * field + 5 if length is None else length
    if callable(prime_length):
        prime_length = prime_length(field)
    prime = torch.randint(config["levels"], (streams, prime_length))
    codes, logits = drawn_stepwise(model, RandomStreams(5, range(streams)), label, length,
                                   prime=prime, **options)
    blocks = sound(model, RandomStreams(5, range(streams)), label, length, prime=prime,
                   sampler=CompiledWaveNetSampler, **options)
    assert torch.equal(codes, blocks)
    assert codes.shape == (streams, length) and codes.dtype == torch.long
    plain = round_to_bf16(model) if options.pop("precision") == "bf16" else model
    expected = plain_logits(plain, label, prime, codes)
    assert (logits - expected).abs().max() < 1e-4
    uniforms = RandomStreams(5, range(streams)).next_uniforms(length)
    if length > 2:  # without an influence of the past, its errors would go unnoticed
        assert expected.std(2).max() > 0.3
    in_rows = [one.transpose(1, 2).flatten(0, 1) for one in (expected, logits)]
    others = check_samples(codes.flatten(), uniforms.flatten(), options["temperature"],
                          options["top_p"], *in_rows, within=1e-5)
    assert len(others) < 3  # none on the machines where this was written


@pytest.mark.parametrize("options", [dict(), dict(precision="bf16"),
                                     dict(temperature=0.3, top_p=0.9)], ids=str)
def test_equals_naive(options):
    """The codes equal those of the naive sampler in double precision."""
    model = network(stacks_num=2, layers_num=4, hidden_dim=7, out_hidden_dim=20, labels=3).float()
    label, prime = labels_for(model, 5), torch.randint(16, (5, 4))
    length = 3 * model.config.receptive_field + 2
    naive = sound(deepcopy(model).double(), RandomStreams(0, range(5)), label, length, prime=prime,
                  sampler=NaiveWaveNetSampler, **options)
    assert torch.equal(naive, sound(model, RandomStreams(0, range(5)), label, length, prime=prime,
                                    **options))


def test_dilations_longer_than_a_chunk():
    """A chunk changes only a part of such a ring buffer."""
    model = network(stacks_num=1, layers_num=13, hidden_dim=5, out_hidden_dim=9).float()
    length, prime = 2 * model.config.receptive_field, torch.randint(16, (2, 3000))
    codes = sound(model, RandomStreams(0, range(2)), None, length, prime=prime)
    expected = plain_logits(model, None, prime, codes).transpose(1, 2).flatten(0, 1)
    uniforms = RandomStreams(0, range(2)).next_uniforms(length)
    assert len(check_samples(codes.flatten(), uniforms.flatten(), 1, 1, expected, within=1e-4)) < 9


@pytest.mark.parametrize("config", [
    dict(stacks_num=2, layers_num=5, hidden_dim=33, out_hidden_dim=40, levels=100, labels=4),
    dict(stacks_num=1, layers_num=1, hidden_dim=1, out_hidden_dim=1)], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sound_is_the_same_in_any_batch(config, precision):
    """In a batch of any size, at any place, on any number of threads, to the last bit."""
    model = network(**config).float()
    label = torch.arange(13) % 4 if model.config.labels else None
    prime = torch.randint(model.config.levels, (13, 20))

    def of(streams):
        streams = list(streams)
        return drawn_stepwise(model, RandomStreams(3, streams),
                              None if label is None else label[streams],
                              150, prime=prime[streams], precision=precision)

    codes, logits = of(range(13))
    assert len({sound.numpy().tobytes() for sound in codes}) == 13
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        for streams in ([4], [12, 0], range(3), range(2, 6), range(5), range(12, 5, -1),
                        range(1, 9), range(9), range(13)):
            some_codes, some_logits = of(streams)
            assert torch.equal(some_codes, codes[list(streams)])
            assert torch.equal(some_logits, logits[list(streams)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sound_continues_its_own_beginning(precision):
    """With its own beginning of any length as the prime, the rest is equal to the last bit."""
    model = network(stacks_num=2, layers_num=5, hidden_dim=33, out_hidden_dim=40, levels=100,
                    labels=4).float()
    field, label = model.config.receptive_field, labels_for(model, 3)
    length = 4 * field
    codes, logits = drawn_stepwise(model, RandomStreams(3, range(3)), label, length,
                                   precision=precision)
    for begin in (1, 2, 3, 8, field - 2, field - 1, field, field + 1, 2 * field + 3, 3 * field):
        streams = RandomStreams(3, range(3))
        streams.next_uniforms(begin)
        rest, rest_logits = drawn_stepwise(model, streams, label, length - begin,
                                           prime=codes[:, :begin], precision=precision)
        assert torch.equal(rest, codes[:, begin:])
        assert torch.equal(rest_logits, logits[:, :, begin:])


def test_chunks_of_any_size_give_the_same_sound():
    model = network(stacks_num=1, layers_num=6).float()
    start = torch.full((3, 1), 8)
    uniforms = RandomStreams(2, range(3)).next_uniforms(600)
    whole = CompiledWaveNetSampler(model, None, start, "fp32").draw(uniforms, 1.0, 1.0)
    for sizes in ([1] * 600, [7] * 85 + [5], [1, 2, 3, 0, 594], [64, 500, 36], [599, 1]):
        state = CompiledWaveNetSampler(model, None, start, "fp32")
        parts = [state.draw(part.contiguous(), 1.0, 1.0) for part in uniforms.split(sizes, dim=1)]
        assert torch.equal(torch.cat(parts, dim=1), whole)


def test_temperature_may_change_within_a_sound():
    model = network(stacks_num=1, layers_num=4).float()
    uniforms = RandomStreams(2, range(2)).next_uniforms(90)
    state = CompiledWaveNetSampler(model, None, torch.full((2, 1), 8), "fp32")
    options = [(1.0, 1.0), (0, 1.0), (3, 0.8)]
    codes = torch.cat([state.draw(part.contiguous(), *option) for part, option
                       in zip(uniforms.split(30, dim=1), options, strict=True)], dim=1)
    naive = NaiveWaveNetSampler(model.double(), None, torch.full((2, 1), 8), "fp32")
    expected = torch.cat([naive.draw(part, *option) for part, option
                          in zip(uniforms.split(30, dim=1), options, strict=True)], dim=1)
    assert torch.equal(codes, expected)


def test_codes_and_labels_of_any_type_and_layout():
    """No type or layout compiles the kernels again."""
    model = network(stacks_num=1, layers_num=3, labels=3).float()
    label, prime = torch.tensor([2, 0, 1]), torch.randint(16, (3, 4))
    expected = sound(model, RandomStreams(0, range(3)), label, 40, prime=prime)
    compiled = len(draw.signatures), len(prefill.signatures)
    for kind in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(expected, sound(model, RandomStreams(0, range(3)), label.to(kind), 40,
                                           prime=prime.to(kind)))
    sideways = prime.t().contiguous().t()
    assert torch.equal(expected, sound(model, RandomStreams(0, range(3)), label, 40,
                                       prime=sideways))
    alike = [sound(model, RandomStreams(0, range(3)), label, 40, prime=layout)
             for layout in (prime[:1].expand(3, -1), prime[:1].repeat(3, 1))]
    assert torch.equal(*alike)
    assert (len(draw.signatures), len(prefill.signatures)) == compiled
    assert not torch.equal(expected, sound(model, RandomStreams(0, range(3)), 0 * label, 40,
                                           prime=prime))


def test_invalid_labels_and_codes_are_refused():
    model = network(stacks_num=1, layers_num=3, labels=3).float()
    for label in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match="labels"):
            sound(model, RandomStreams(0, range(2)), torch.tensor(label), 1)
    for code in (-1, 16):
        with pytest.raises(IndexError, match="codes"):
            sound(model, RandomStreams(0, [0]), torch.tensor([0]), 1,
                  prime=torch.tensor([[3, code]]))
    with pytest.raises(TypeError):
        sound(model, RandomStreams(0, [0]), None, 1)


def test_the_weights_are_copied_when_sampling_begins():
    """Later changes of the model have no effect, and sampling does not change the model."""
    model = network(stacks_num=2, layers_num=3, labels=2).float()
    before = deepcopy(model.state_dict())
    label = labels_for(model, 2)
    expected = sound(model, RandomStreams(0, range(2)), label, 200, sampler=CompiledWaveNetSampler,
                     precision="bf16")
    blocks = sample_sounds(model, RandomStreams(0, range(2)), label, 200,
                           sampler=CompiledWaveNetSampler, precision="bf16")
    first = next(blocks)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(torch.cat((first, *blocks), dim=1), expected)


def test_a_network_of_nan_draws_codes_in_range():
    """After diverged training, no index leaves its array."""
    model = network(stacks_num=2, layers_num=3, labels=2).float()
    for parameter in (model.logits.bias, model.layers[0].now.weight, model.embed_now.weight):
        parameter.data.fill_(float("nan"))
        for temperature, top_p in ((1, 1), (0, 1), (1, 0.5)):
            codes = sound(model, RandomStreams(0, range(3)), labels_for(model, 3), 30,
                          temperature=temperature, top_p=top_p)
            assert 0 <= codes.min() and codes.max() < 16
