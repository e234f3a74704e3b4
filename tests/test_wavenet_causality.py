"""WaveNet: each output depends on its R codes and on no others."""

import pytest
import torch
from test_wavenet import DEPTHS, network, sounds

from models.wavenet import WaveNetConfig


@pytest.mark.parametrize("stacks_num, layers_num", DEPTHS + [(5, 10), (4, 10), (1, 12)])
def test_receptive_field_is_stacks_times_two_to_the_layers_less_one_plus_two(
        stacks_num, layers_num):
    config = WaveNetConfig(stacks_num=stacks_num, layers_num=layers_num)
    assert config.receptive_field == stacks_num * (2 ** layers_num - 1) + 2
    assert len(config.dilations) == stacks_num * layers_num
    assert config.dilations[:layers_num] == [2 ** i for i in range(layers_num)]
    assert config.dilations == config.dilations[:layers_num] * stacks_num


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("stacks_num, layers_num", DEPTHS)
def test_output_k_depends_on_the_codes_from_k_to_k_plus_r_minus_1_only(
        stacks_num, layers_num, labels):
    changed = 0
    for seed in range(4):
        model = network(seed, levels=5, stacks_num=stacks_num, layers_num=layers_num, labels=labels)
        field = model.config.receptive_field
        length = field + 4
        codes = sounds(1, length, model.config).repeat(length + 1, 1)
        for t in range(length):  # sequence t differs from the last one at code t
            codes[t, t] = (codes[t, t] + 1 + seed) % 5
        with torch.no_grad():
            logits = model(codes, torch.full((length + 1,), 1) if labels else None)
        changed = changed + (logits[:-1] - logits[-1:]).abs().sum(1).t()  # (k, t)
    k, t = torch.arange(5)[:, None], torch.arange(length)[None, :]
    assert torch.equal(changed > 1e-12, (k <= t) & (t < k + field))


@pytest.mark.parametrize("extra", [0, 1, 7])
@pytest.mark.parametrize("stacks_num, layers_num", DEPTHS)
def test_t_codes_give_t_minus_r_plus_1_outputs(stacks_num, layers_num, extra):
    model = network(levels=7, stacks_num=stacks_num, layers_num=layers_num)
    codes = sounds(3, model.config.receptive_field + extra, model.config)
    assert model(codes).shape == (3, 7, extra + 1)


@pytest.mark.parametrize("missing", [1, 2, "all"])
@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (2, 3)])
def test_too_few_codes_are_an_error_that_names_both_lengths(
        stacks_num, layers_num, missing):
    model = network(levels=4, stacks_num=stacks_num, layers_num=layers_num)
    field = model.config.receptive_field
    length = 0 if missing == "all" else field - missing
    with pytest.raises(ValueError, match=rf"\b{length}\b.*\b{field}\b"):
        model(torch.zeros(2, length, dtype=torch.long))


@pytest.mark.parametrize("labels", [0, 2])
@pytest.mark.parametrize("stacks_num, layers_num", [(1, 1), (2, 2), (2, 4)])
def test_a_window_has_the_same_outputs_as_in_a_longer_sequence(
        stacks_num, layers_num, labels):
    model = network(levels=9, stacks_num=stacks_num, layers_num=layers_num, labels=labels)
    codes, label = sounds(2, model.config.receptive_field + 11, model.config), None
    if labels:
        label = torch.tensor([1, 0])
    whole = model(codes, label)
    for first, outputs in ((0, 1), (3, 1), (11, 1), (0, 5), (4, 8)):
        window = codes[:, first:first + model.config.receptive_field + outputs - 1]
        torch.testing.assert_close(model(window, label), whole[:, :, first:first + outputs],
                                   rtol=1e-12, atol=1e-12)


def test_constant_codes_give_constant_outputs():
    """A sampler's first state relies on this: it computes one column for all initial silence."""
    model = network(levels=4, stacks_num=2, layers_num=3)
    logits = model(torch.full((1, model.config.receptive_field + 5), 2))
    torch.testing.assert_close(logits, logits[:, :, :1].expand_as(logits), rtol=1e-12, atol=1e-12)
