"""Gated PixelCNN: what each sub-pixel may see and does see, and honest likelihoods."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from models.pixelcnn import PixelCNN, PixelCNNConfig


def network(seed=0, **config):
    """A random network in double precision, its weights larger than fresh ones, so that what is
    many layers away is still felt, and a picture of its labels."""
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(**config)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def with_open_rectifiers(model):
    """The model with both ReLUs of its output passing everything: where one is shut, an output
    doesn't feel what it may see, by accident."""
    with torch.no_grad():
        model.blocks[-1].out.bias += 20
        model.hidden.bias += 200
    return model


def pictures(count, height, width, config):
    return torch.randint(config.levels, (count, config.channels, height, width))


def labels_for(count, config):
    """A label or a vector for each of `count` pictures, or None, as the network is to have it."""
    if config.vector:
        return torch.randn(count, config.vector)
    return torch.arange(count) % config.labels if config.labels else None


# ------------------------------------------------------------------------------ what is seen

def influence(height, width, **config):
    """|∂ logits of sub-pixel o / ∂ sub-pixel s|, added up over random networks: (o, s).

    The network is given as many copies of a picture as there are sub-pixels; copy o is
    differentiated at its sub-pixel o alone, so that one backward pass makes the whole matrix.
    """
    total = 0
    for seed in range(4):
        model = with_open_rectifiers(network(seed, **config))
        n = model.config.channels * height * width
        picture = torch.rand(1, model.config.channels, height, width, dtype=torch.double) * 2 - 1
        leaf = picture.repeat(n, 1, 1, 1).requires_grad_()
        model.scale = lambda codes, leaf=leaf: leaf
        label = labels_for(n, model.config)
        logits = model(torch.zeros(leaf.shape, dtype=torch.long), label)
        at_o = logits.flatten(2).diagonal(dim1=0, dim2=2)  # (levels, o)
        (at_o * torch.randn(model.config.levels, 1, dtype=torch.double)).sum().backward()
        total = total + leaf.grad.flatten(1).abs()
    return total


def expected(height, width, channels, blocks_num):
    """Which s each o is to see, by the geometry of the paper's figure 2: (o, s) of booleans.

    The first block sees 3 rows up, 3 columns to the left and, above, 3 to the right; every further
    block one more of each. Within a pixel R comes before G, G before B.
    """
    reach = 3 + (blocks_num - 1)
    places = list(itertools.product(range(channels), range(height), range(width)))
    sees = torch.zeros(len(places), len(places), dtype=torch.bool)
    for o, (c, i, j) in enumerate(places):
        for s, (d, k, m) in enumerate(places):
            up, left = i - k, j - m
            above = 1 <= up <= reach and -reach <= left <= reach
            same_row = up == 0 and 1 <= left <= reach
            same_pixel = up == 0 and left == 0 and d < c
            sees[o, s] = above or same_row or same_pixel
    return sees


def assert_sees(actual, wanted, height, width):
    """Fails with the first few pairs that differ, as (channel, row, column)."""
    def place(index):
        return (index // (height * width), index // width % height, index % width)

    leaks, blind = (actual != 0) & ~wanted, (actual == 0) & wanted
    for what, wrong in (("sees what it must not", leaks), ("is blind to", blind)):
        pairs = [f"{place(o)} {what}: {place(s)}" for o, s in wrong.nonzero().tolist()[:5]]
        assert not pairs, f"{int(wrong.sum())} pairs: " + "; ".join(pairs)


NETWORKS = [  # channels, hidden_dim, out_hidden_dim, labels
    (1, 4, 1, 0), (1, 5, 7, 3), (3, 4, 5, 0), (3, 5, 4, 3), (3, 7, 8, 0), (3, 8, 7, 2),
    (3, 6, 3, 0), (3, 3, 3, 0)]


@pytest.mark.parametrize("blocks_num", [1, 2, 5])
@pytest.mark.parametrize("channels, hidden_dim, out_hidden_dim, labels", NETWORKS)
def test_a_sub_pixel_sees_all_before_it_in_reach_and_nothing_else(
        channels, hidden_dim, out_hidden_dim, labels, blocks_num):
    height, width = 6, 6
    seen = influence(height, width, levels=3, channels=channels, hidden_dim=hidden_dim,
                     out_hidden_dim=out_hidden_dim, blocks_num=blocks_num, labels=labels)
    assert_sees(seen, expected(height, width, channels, blocks_num), height, width)


@pytest.mark.parametrize("blocks_num", [1, 2, 3, 5])
def test_the_cone_widens_by_one_pixel_to_each_side_with_each_block(blocks_num):
    reach = 3 + (blocks_num - 1)
    height, width = reach + 2, 2 * reach + 3  # one more on each side than the middle can see
    seen = influence(height, width, levels=2, hidden_dim=8, out_hidden_dim=8,
                     blocks_num=blocks_num)
    assert_sees(seen, expected(height, width, 1, blocks_num), height, width)
    # and once more in words, for the last pixel with all its field in the picture
    field = (seen.view(height, width, height, width)[-1, reach + 1] != 0)
    assert field[-2].sum() == 2 * reach + 1, "the row above is seen 7 wide, then 9, 11, …"
    assert field[0].sum() == 0 and field[1].sum() == 2 * reach + 1
    assert field[-1].sum() == reach


@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_enough_network_sees_the_whole_past(channels):
    height, width = 5, 6
    seen = influence(height, width, levels=2, channels=channels, hidden_dim=7, out_hidden_dim=8,
                     blocks_num=3)  # reach 5
    # in the order of generation, pixel by pixel and then channel by channel, a strict triangle
    n = channels * height * width
    order = torch.arange(n).view(channels, height * width).t().flatten()
    before = torch.ones(n, n).tril(-1).bool()
    assert torch.equal(seen[order][:, order] != 0, before)


@pytest.mark.parametrize("levels, channels, labels", [(2, 1, 0), (4, 3, 3), (256, 3, 0)])
def test_another_code_changes_the_later_outputs_and_no_other(levels, channels, labels):
    height, width = 3, 4
    wanted = expected(height, width, channels, 3)
    n, changed = len(wanted), 0
    for seed in range(4):
        model = with_open_rectifiers(network(
            seed, levels=levels, channels=channels, hidden_dim=7, out_hidden_dim=5, blocks_num=3,
            labels=labels))
        codes = pictures(1, height, width, model.config).repeat(n + 1, 1, 1, 1)
        for s in range(n):  # picture s differs from the last one at sub-pixel s
            codes[s].view(-1)[s] = (codes[s].view(-1)[s] + max(1, levels // 2)) % levels
        label = torch.full((n + 1,), 1) if labels else None
        with torch.no_grad():
            logits = model(codes, label).flatten(2)
        changed = changed + (logits[:n] - logits[n:]).abs().sum(1).t()  # (o, s)
    changed[changed < 1e-10] = 0  # what rounding may do
    assert_sees(changed, wanted, height, width)


@pytest.mark.parametrize("width, channels", [(3, 3), (4, 3), (5, 3), (7, 3), (8, 3), (5, 1)])
def test_every_channel_has_feature_maps_of_its_own(width, channels):
    """R's hidden features see nothing of their pixel, G's only R, B's R and G."""
    seen = 0
    for seed in range(4):
        model = network(seed, channels=channels, hidden_dim=width, blocks_num=1)
        leaf = torch.rand(1, 1, 1, channels, dtype=torch.double, requires_grad=True)
        block = model.blocks[0]
        h = block(*block.framed_image(leaf))[1][:, :, 1:]
        seen = seen + torch.stack(
            [torch.autograd.grad(f, leaf, retain_graph=True, allow_unused=True,
                                 materialize_grads=True)[0].flatten().abs() for f in h.flatten()])
    sees_channels = (seen != 0).int()
    own = sees_channels.sum(1)  # a feature of channel c sees c channels
    sizes = torch.bincount(own, minlength=channels)
    assert (own.diff() >= 0).all()
    assert len(sizes) == channels
    assert sizes.max() - sizes.min() <= 1
    assert (sees_channels.diff(dim=1) <= 0).all(), "R is seen before G, G before B"


# ------------------------------------------------------------------------------ likelihood

def log_likelihood(model, codes, label=None):
    """log p(picture): (B,), in nats."""
    log_p = model(codes, label).log_softmax(1)
    return log_p.gather(1, codes[:, None]).flatten(1).sum(1)


@pytest.mark.parametrize("labels", [0, 2])
@pytest.mark.parametrize("levels, channels, height, width, blocks_num", [
    (2, 1, 3, 3, 1), (2, 1, 3, 3, 3), (2, 3, 2, 1, 2), (2, 3, 1, 2, 2), (3, 1, 2, 3, 2),
    (8, 3, 1, 1, 2), (4, 3, 1, 1, 1)])
def test_probabilities_of_all_pictures_add_up_to_one(
        levels, channels, height, width, blocks_num, labels):
    model = network(levels=levels, channels=channels, hidden_dim=8, out_hidden_dim=8,
                    blocks_num=blocks_num, labels=labels)
    n = channels * height * width
    codes = torch.cartesian_prod(*[torch.arange(levels)] * n).view(-1, channels, height, width)
    assert len(codes) == levels ** n
    with torch.no_grad():
        for label in range(labels) if labels else [None]:
            each = None if label is None else torch.full((len(codes),), label)
            p = log_likelihood(model, codes, each).exp()
            assert p.std() > 0.01 * p.mean(), "of a flat distribution the sum would say nothing"
            assert p.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("channels, labels", [(1, 0), (3, 0), (3, 2)])
def test_a_network_of_zeros_scores_log2_levels_bits_per_dimension(levels, channels, labels):
    model = network(levels=levels, channels=channels, hidden_dim=4, blocks_num=2, labels=labels)
    for parameter in model.parameters():
        parameter.data.zero_()
    codes = pictures(2, 3, 4, model.config)
    nll = F.cross_entropy(model(codes, labels_for(2, model.config)), codes)
    assert nll.item() / math.log(2) == pytest.approx(math.log2(levels), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_codes_are_scaled_to_the_interval_from_minus_one_to_one(levels):
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
        codes = pictures(1, 4, 5, model.config).repeat(3, 1, 1, 1)
        logits = model(codes, torch.arange(3))
        assert torch.equal(logits, model(codes, torch.arange(3)))
        changed = changed + (logits - logits[[1, 2, 0]]).abs().sum(1)
    assert (changed > 1e-9).all()


def test_the_label_reaches_both_stacks_of_every_block_and_the_other_labels_do_not():
    model = network(levels=4, hidden_dim=6, out_hidden_dim=16, blocks_num=4, labels=3)
    codes = pictures(4, 5, 5, model.config)
    F.cross_entropy(model(codes, torch.full((4,), 1)), codes).backward()
    for i, block in enumerate(model.blocks):
        gates = [block.horizontal_gate] + ([block.vertical_gate] if i < 3 else [])
        assert block.vertical_gate is not None or i == 3
        for gate in gates:
            grad = gate.condition.weight.grad
            assert (grad[1] != 0).all()
            assert (grad[[0, 2]] == 0).all()


def test_each_picture_is_given_its_own_label():
    model = network(levels=4, channels=3, hidden_dim=7, blocks_num=3, labels=5)
    codes, label = pictures(3, 4, 3, model.config), torch.tensor([4, 0, 3])
    together = model(codes, label)
    for i in range(3):
        torch.testing.assert_close(together[i:i + 1], model(codes[i:i + 1], label[i:i + 1]),
                                   rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------ fresh networks

@pytest.mark.parametrize("channels, levels", [(1, 2), (3, 256)])
def test_a_fresh_network_of_the_default_depth_is_near_the_uniform_distribution(channels, levels):
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(levels=levels, channels=channels, hidden_dim=32))
    codes = pictures(2, 12, 12, model.config)
    nll = F.cross_entropy(model(codes), codes).item()
    assert nll == pytest.approx(math.log(levels), rel=0.1)


def test_in_a_fresh_network_the_deepest_vertical_features_still_feel_the_picture():
    """The vertical stack has no residual connection: with weights too small each block fades it,
    and blocks far from the picture would start with a constant for their view of the rows above."""
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(hidden_dim=32))  # 15 blocks
    vertical = []
    for block in model.blocks[:-1]:
        block.vertical_gate.register_forward_hook(
            lambda gate, inputs, output: vertical.append(output[:, 1:]))
    codes = pictures(2, 28, 28, model.config)
    with torch.no_grad():
        model(codes)
    fades = [(v[0] - v[1])[20:].pow(2).mean().sqrt().item() for v in vertical]
    assert fades[-1] > 1e-3 * fades[0], f"difference of two pictures, by block: {fades}"


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
    logits = model(pictures(batch, height, width, model.config))
    assert logits.shape == (batch, levels, channels, height, width)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_of_any_integer_type_give_the_same_logits(dtype):
    model = network(levels=256, channels=3, hidden_dim=5, blocks_num=2)
    codes = pictures(1, 3, 3, model.config)
    assert torch.equal(model(codes.to(dtype)), model(codes))


def test_single_precision_is_close_to_double():
    model = network(levels=4, channels=3, hidden_dim=8, blocks_num=3, labels=2)
    codes, label = pictures(2, 6, 5, model.config), torch.tensor([1, 0])
    double = model(codes, label)
    single = model.float()(codes, label)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("levels, channels", [(4, 1), (4, 3)])
def test_a_picture_alone_and_in_a_batch_gives_the_same_logits(levels, channels):
    model = network(levels=levels, channels=channels, hidden_dim=7, blocks_num=3)
    codes = pictures(3, 5, 6, model.config)
    alone = torch.cat([model(picture[None]) for picture in codes])
    torch.testing.assert_close(alone, model(codes), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["hidden_dim", "out_hidden_dim"])
@pytest.mark.parametrize("channels, width", [(3, 2), (3, 1), (1, 0)])
def test_fewer_feature_maps_than_channels_is_an_error_that_names_the_width(name, channels, width):
    with pytest.raises(ValueError, match=rf"{name}.*{width}.*{channels}"):
        PixelCNNConfig(channels=channels, **{name: width})


@pytest.mark.parametrize("wrong", [
    {"levels": 1}, {"levels": 0}, {"blocks_num": 0}, {"channels": 0}, {"labels": -1},
    {"vector": -1}, {"vector": 3, "labels": 2}],
    ids=lambda wrong: "{}={}".format(*list(wrong.items())[0]))
def test_what_cannot_be_built_is_an_error_as_the_config_says(wrong):
    with pytest.raises(ValueError, match=list(wrong)[0]):
        PixelCNNConfig(**wrong)
