"""Gated PixelCNN: normalised likelihoods, labels, shapes, and invalid configurations."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.pixelcnn import PixelCNN, PixelCNNConfig


def network(seed=0, **config):
    """A random network in double precision, with weights large enough for distant layers and labels
    to have an effect."""
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(**config)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def with_open_rectifiers(model):
    """The model with both of its output's ReLUs open: a closed one would hide a dependence."""
    with torch.no_grad():
        model.blocks[-1].out.bias += 20
        model.hidden.bias += 200
    return model


def images(count, height, width, config):
    return torch.randint(config.levels, (count, config.channels, height, width))


def labels_for(count, config):
    """A label or a vector for each of `count` images, or None, depending on the network."""
    if config.vector:
        return torch.randn(count, config.vector)
    return torch.arange(count) % config.labels if config.labels else None


# ------------------------------------------------------------------------------ likelihood

def log_likelihood(model, codes, label=None):
    """log p(image): (B,), in nats."""
    log_p = model(codes, label).log_softmax(1)
    return log_p.gather(1, codes[:, None]).flatten(1).sum(1)


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("labels", [0, 2])
@pytest.mark.parametrize("levels, channels, height, width, blocks_num", [
    (2, 1, 3, 3, 1), (2, 1, 3, 3, 3), (2, 3, 2, 1, 2), (2, 3, 1, 2, 2), (3, 1, 2, 3, 2),
    (8, 3, 1, 1, 2), (4, 3, 1, 1, 1)])
def test_probabilities_of_all_images_sum_to_one(
        levels, channels, height, width, blocks_num, labels, position):
    model = network(levels=levels, channels=channels, hidden_dim=8, out_hidden_dim=8,
                    blocks_num=blocks_num, labels=labels, position=position)
    n = channels * height * width
    codes = torch.cartesian_prod(*[torch.arange(levels)] * n).view(-1, channels, height, width)
    assert len(codes) == levels ** n
    with torch.no_grad():
        for label in range(labels) if labels else [None]:
            each = None if label is None else torch.full((len(codes),), label)
            p = log_likelihood(model, codes, each).exp()
            assert p.std() > 0.01 * p.mean(), "the sum would prove nothing for a flat distribution"
            assert p.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("channels, labels", [(1, 0), (3, 0), (3, 2)])
def test_a_network_of_zeros_scores_log2_levels_bits_per_dimension(levels, channels, labels):
    model = network(levels=levels, channels=channels, hidden_dim=4, blocks_num=2, labels=labels)
    for parameter in model.parameters():
        parameter.data.zero_()
    codes = images(2, 3, 4, model.config)
    nll = F.cross_entropy(model(codes, labels_for(2, model.config)), codes)
    assert nll.item() / math.log(2) == pytest.approx(math.log2(levels), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_codes_are_scaled_to_minus_one_to_one(levels):
    model = PixelCNN(PixelCNNConfig(levels=levels, hidden_dim=4, blocks_num=1)).double()
    scaled = model.scale(torch.arange(levels))
    torch.testing.assert_close(scaled, torch.linspace(-1, 1, levels, dtype=torch.double))
    assert model.float().scale(torch.arange(levels)).dtype == torch.float


# ------------------------------------------------------------------------------ labels

@pytest.mark.parametrize("blocks_num", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_another_label_changes_the_logits_of_every_sub_pixel(channels, blocks_num):
    changed = 0
    for seed in range(3):
        model = network(seed, levels=4, channels=channels, hidden_dim=7, out_hidden_dim=8,
                        blocks_num=blocks_num, labels=3)
        codes = images(1, 4, 5, model.config).repeat(3, 1, 1, 1)
        logits = model(codes, torch.arange(3))
        assert torch.equal(logits, model(codes, torch.arange(3)))
        changed = changed + (logits - logits[[1, 2, 0]]).abs().sum(1)
    assert (changed > 1e-9).all()


def test_the_label_reaches_both_stacks_of_every_block_and_the_other_labels_do_not():
    model = network(levels=4, hidden_dim=6, out_hidden_dim=16, blocks_num=4, labels=3)
    codes = images(4, 5, 5, model.config)
    F.cross_entropy(model(codes, torch.full((4,), 1)), codes).backward()
    for i, block in enumerate(model.blocks):
        gates = [block.horizontal_gate] + ([block.vertical_gate] if i < 3 else [])
        assert block.vertical_gate is not None or i == 3
        for gate in gates:
            grad = gate.condition.weight.grad
            assert (grad[1] != 0).all()
            assert (grad[[0, 2]] == 0).all()


def test_each_image_has_its_own_label():
    model = network(levels=4, channels=3, hidden_dim=7, blocks_num=3, labels=5)
    codes, label = images(3, 4, 3, model.config), torch.tensor([4, 0, 3])
    together = model(codes, label)
    for i in range(3):
        torch.testing.assert_close(together[i:i + 1], model(codes[i:i + 1], label[i:i + 1]),
                                   rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------ fresh networks

@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("channels, levels", [(1, 2), (3, 256)])
def test_a_fresh_network_of_the_default_depth_is_near_the_uniform_distribution(
        channels, levels, position):
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(levels=levels, channels=channels, hidden_dim=32,
                                    position=position))
    codes = images(2, 12, 12, model.config)
    nll = F.cross_entropy(model(codes), codes).item()
    assert nll == pytest.approx(math.log(levels), rel=0.1)


def test_in_a_fresh_network_the_deepest_vertical_features_depend_on_the_image():
    """The vertical stack has no residual connection. With small weights each block would attenuate
    it, and deep blocks would start with a constant view of the rows above."""
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(hidden_dim=32))  # 15 blocks
    vertical = []
    for block in model.blocks[:-1]:
        block.vertical_gate.register_forward_hook(
            lambda gate, inputs, output: vertical.append(output[:, 1:]))
    codes = images(2, 28, 28, model.config)
    with torch.no_grad():
        model(codes)
    sizes = [(v[0] - v[1])[20:].pow(2).mean().sqrt().item() for v in vertical]
    assert sizes[-1] > 1e-3 * sizes[0], f"difference of two images, by block: {sizes}"


# ------------------------------------------------------------------------------ shapes and refusals

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch, levels, channels, height, width", [
    (1, 2, 1, 28, 28), (2, 256, 3, 5, 8), (3, 4, 1, 8, 3), (1, 2, 3, 1, 1), (1, 256, 1, 1, 9),
    (2, 2, 1, 9, 1)])
def test_logits_have_the_shape_batch_levels_channels_height_width(
        batch, levels, channels, height, width, dtype):
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(levels=levels, channels=channels, hidden_dim=4,
                                    out_hidden_dim=4, blocks_num=2)).to(dtype)
    logits = model(images(batch, height, width, model.config))
    assert logits.shape == (batch, levels, channels, height, width)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_of_any_integer_type_give_the_same_logits(dtype):
    model = network(levels=256, channels=3, hidden_dim=5, blocks_num=2)
    codes = images(1, 3, 3, model.config)
    assert torch.equal(model(codes.to(dtype)), model(codes))


def test_single_precision_is_close_to_double():
    model = network(levels=4, channels=3, hidden_dim=8, blocks_num=3, labels=2)
    codes, label = images(2, 6, 5, model.config), torch.tensor([1, 0])
    double = model(codes, label)
    single = model.float()(codes, label)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("levels, channels", [(4, 1), (4, 3)])
def test_an_image_alone_and_in_a_batch_has_the_same_logits(levels, channels):
    model = network(levels=levels, channels=channels, hidden_dim=7, blocks_num=3)
    codes = images(3, 5, 6, model.config)
    alone = torch.cat([model(image[None]) for image in codes])
    torch.testing.assert_close(alone, model(codes), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["hidden_dim", "out_hidden_dim"])
@pytest.mark.parametrize("channels, width", [(3, 2), (3, 1), (1, 0)])
def test_fewer_features_than_channels_are_an_error_that_names_the_parameter(name, channels, width):
    with pytest.raises(ValueError, match=rf"^{name} {width}:.*{channels}"):
        PixelCNNConfig(channels=channels, **{name: width})


@pytest.mark.parametrize("wrong", [
    {"levels": 1}, {"levels": 0}, {"blocks_num": 0}, {"channels": 0}, {"labels": -1},
    {"vector": -1}, {"vector": 3, "labels": 2}],
    ids=lambda wrong: "{}={}".format(*list(wrong.items())[0]))
def test_an_invalid_value_is_an_error_that_names_the_parameter(wrong):
    with pytest.raises(ValueError, match=list(wrong)[0]):
        PixelCNNConfig(**wrong)
