"""Gated PixelCNN: which sub-pixels each sub-pixel depends on."""

import itertools

import pytest
import torch
from test_pixelcnn import images, labels_for, network, with_open_rectifiers


def influence(height, width, alter=lambda model: model, **config):
    """|∂ logits of sub-pixel o / ∂ sub-pixel s|, summed over random networks: (o, s).

    The batch has one copy of an image per sub-pixel. Copy o is differentiated at its sub-pixel o
    only, so one backward pass computes the whole matrix. alter: changes the networks.
    """
    total = 0
    for seed in range(4):
        model = alter(with_open_rectifiers(network(seed, **config)))
        n = model.config.channels * height * width
        image = torch.rand(1, model.config.channels, height, width, dtype=torch.double) * 2 - 1
        leaf = image.repeat(n, 1, 1, 1).requires_grad_()
        numbers = torch.linspace(1, 2, model.config.code_features, dtype=torch.double)
        model.read_code = lambda codes, leaf=leaf, numbers=numbers: leaf[..., None] * numbers
        label = labels_for(n, model.config)
        logits = model(torch.zeros(leaf.shape, dtype=torch.long), label)
        at_o = logits.flatten(2).diagonal(dim1=0, dim2=2)  # (levels, o)
        (at_o * torch.randn(model.config.levels, 1, dtype=torch.double)).sum().backward()
        total = total + leaf.grad.flatten(1).abs()
    return total


def expected(height, width, channels, blocks_num):
    """Which s each o must see, by the geometry of the paper's figure 2: (o, s), bool.

    The first block sees 3 rows up, 3 columns to the left and, above, 3 to the right; every further
    block sees one more of each. The order within a pixel is R, G, B.
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
    """Fail with the first few pairs that differ, as (channel, row, column)."""
    def place(index):
        return (index // (height * width), index // width % height, index % width)

    leaks, blind = (actual != 0) & ~wanted, (actual == 0) & wanted
    for what, wrong in (("sees what it must not", leaks), ("is blind to", blind)):
        pairs = [f"{place(o)} {what}: {place(s)}" for o, s in wrong.nonzero().tolist()[:5]]
        assert not pairs, f"{int(wrong.sum())} pairs: " + "; ".join(pairs)


NETWORKS = [  # channels, hidden_dim, out_hidden_dim, labels
    (1, 4, 1, 0), (1, 5, 7, 3), (3, 4, 5, 0), (3, 5, 4, 3), (3, 7, 8, 0), (3, 8, 7, 2),
    (3, 6, 3, 0), (3, 3, 3, 0)]


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("blocks_num", [1, 2, 5])
@pytest.mark.parametrize("channels, hidden_dim, out_hidden_dim, labels", NETWORKS)
def test_a_sub_pixel_sees_its_receptive_field_and_nothing_else(
        channels, hidden_dim, out_hidden_dim, labels, blocks_num, position):
    height, width = 6, 6
    seen = influence(height, width, levels=3, channels=channels, hidden_dim=hidden_dim,
                     out_hidden_dim=out_hidden_dim, blocks_num=blocks_num, labels=labels,
                     position=position)
    assert_sees(seen, expected(height, width, channels, blocks_num), height, width)


@pytest.mark.parametrize("blocks_num", [1, 2, 3, 5])
def test_the_cone_widens_by_one_pixel_to_each_side_with_each_block(blocks_num):
    reach = 3 + (blocks_num - 1)
    height, width = reach + 2, 2 * reach + 3  # one more on each side than the centre can see
    seen = influence(height, width, levels=2, hidden_dim=8, out_hidden_dim=8,
                     blocks_num=blocks_num)
    assert_sees(seen, expected(height, width, 1, blocks_num), height, width)
    # The same explicitly, for the last pixel whose whole field is inside the image.
    field = (seen.view(height, width, height, width)[-1, reach + 1] != 0)
    assert field[-2].sum() == 2 * reach + 1, "the row above is seen 7 wide, then 9, 11, …"
    assert field[0].sum() == 0 and field[1].sum() == 2 * reach + 1
    assert field[-1].sum() == reach


@pytest.mark.parametrize("embedding", [0, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_enough_network_sees_the_whole_past(channels, embedding):
    height, width = 5, 6
    seen = influence(height, width, levels=2, channels=channels, hidden_dim=7, out_hidden_dim=8,
                     blocks_num=3, embedding=embedding)  # reach 5
    # A strict triangle in the order of generation: pixel by pixel, then channel by channel.
    n = channels * height * width
    order = torch.arange(n).view(channels, height * width).t().flatten()
    before = torch.ones(n, n).tril(-1).bool()
    assert torch.equal(seen[order][:, order] != 0, before)


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("levels, channels, labels", [(2, 1, 0), (4, 3, 3), (256, 3, 0)])
def test_a_changed_code_changes_later_outputs_only(levels, channels, labels, position):
    height, width = 3, 4
    wanted = expected(height, width, channels, 3)
    n, changed = len(wanted), 0
    for seed in range(4):
        model = with_open_rectifiers(network(
            seed, levels=levels, channels=channels, hidden_dim=7, out_hidden_dim=5, blocks_num=3,
            labels=labels, position=position))
        codes = images(1, height, width, model.config).repeat(n + 1, 1, 1, 1)
        for s in range(n):  # image s differs from the last one at sub-pixel s
            codes[s].view(-1)[s] = (codes[s].view(-1)[s] + max(1, levels // 2)) % levels
        label = torch.full((n + 1,), 1) if labels else None
        with torch.no_grad():
            logits = model(codes, label).flatten(2)
        changed = changed + (logits[:n] - logits[n:]).abs().sum(1).t()  # (o, s)
    changed[changed < 1e-10] = 0  # what rounding may do
    assert_sees(changed, wanted, height, width)


@pytest.mark.parametrize("width, channels", [(3, 3), (4, 3), (5, 3), (7, 3), (8, 3), (5, 1)])
def test_every_channel_has_its_own_feature_maps(width, channels):
    """Within their pixel, R's hidden features see nothing, G's only R, B's R and G."""
    seen = 0
    for seed in range(4):
        model = network(seed, channels=channels, hidden_dim=width, blocks_num=1)
        leaf = torch.rand(1, 1, 1, channels, dtype=torch.double, requires_grad=True)
        block = model.blocks[0]
        h = block(*block.pad_image(leaf))[1][:, :, 1:]
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
