"""Gated PixelCNN: the shifted small kernels against the paper's full masked ones."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from test_pixelcnn import images, labels_for, network


def may_look(size, rows, in_groups=None, out_groups=None, strict=False):
    """A mask on an n×n kernel in the order of generation: (out | 1, in | 1, n, n).

    rows: "above" passes the rows above the middle row, "to middle" also the middle row, "left" the
    middle row left of the centre. With groups, "left" also passes the centre for the earlier groups
    and, unless strict, for the output's own group.
    """
    centre = size // 2
    mask = torch.zeros(1, 1, size, size, dtype=torch.double)
    if rows == "left":
        mask[:, :, centre, :centre] = 1
    else:
        mask[:, :, :centre + (rows == "to middle")] = 1
    if in_groups is not None:
        mask = mask.repeat(len(out_groups), len(in_groups), 1, 1)
        for o, i in itertools.product(range(len(out_groups)), range(len(in_groups))):
            mask[o, i, centre, centre] = float(
                in_groups[i] < out_groups[o] or (in_groups[i] == out_groups[o] and not strict))
    return mask


def channel_of(width, channels):
    """The channel of each feature map, in groups as equal as possible, the larger ones first."""
    return [c for c, part in enumerate(torch.arange(width).tensor_split(channels)) for _ in part]


def position_inputs(position, height, width):
    """What the position adds to the gates' inputs, computed per pixel and sinusoid: (2p, H, W)."""
    added = torch.zeros(len(position.of_row.weight), height, width, dtype=torch.double)
    for i, j in itertools.product(range(height), range(width)):
        for k, length in enumerate((4, 8, 16, 32, 64, 128, 256)):
            for layer, x in ((position.of_row, i), (position.of_column, j)):
                sine, cosine = layer.weight[:, k], layer.weight[:, 7 + k]
                angle = 2 * math.pi * x / length
                sinusoid = (sine * math.sin(angle) + cosine * math.cos(angle))[:, None, None]
                added = added + F.pad(sinusoid, (j, width - 1 - j, i, height - 1 - i))
    return added


def slow_reference(model, codes, label=None):
    """The network with full n×n kernels times masks A and B, on the whole unshifted image.

    The kernels are random wherever the model has no weight.
    """
    config = model.config
    features = channel_of(config.hidden_dim, config.channels)
    hidden = channel_of(config.out_hidden_dim, config.channels)
    logits = channel_of(config.channels * config.levels, config.channels)

    def masked(x, mask, *parts):
        """Convolve x with a kernel of noise that contains `parts`: (weights, row, column)."""
        weight = parts[0][0]
        n = mask.shape[-1]
        kernel = torch.randn(*weight.shape[:2], n, n, dtype=torch.double)
        for weight, row, column in parts:
            _, _, high, wide = weight.shape
            kernel = kernel.clone()
            kernel[:, :, row:row + high, column:column + wide] = weight
        return F.conv2d(x, kernel * mask, padding=n // 2)

    def one_by_one(x, layer, in_groups, out_groups):
        mask = may_look(1, "left", in_groups, out_groups)
        return F.conv2d(x, layer.weight * mask, layer.bias)

    def gated(x, embedding):
        if embedding.condition is not None:
            x = x + embedding.condition.weight[label][:, :, None, None]
        f, g = x[:, :config.hidden_dim], x[:, config.hidden_dim:]
        return f.tanh() * g.sigmoid()

    v = h = codes.double() / (config.levels - 1) * 2 - 1
    for i, block in enumerate(model.blocks):
        size = 7 if i == 0 else 3
        centre = size // 2
        inputs = channel_of(config.channels, config.channels) if i == 0 else features
        above = masked(v, may_look(size, "above" if i == 0 else "to middle"),
                       (block.vertical.weight, 0, 0)) + block.vertical.bias[:, None, None]
        if block.position is not None:
            above = above + position_inputs(block.position, *codes.shape[2:])
        parts = [(block.left.weight, centre, 0)]
        if block.here is not None:
            parts.append((block.here.weight, centre, centre))
        own = masked(h, may_look(size, "left", inputs, features * 2, strict=i == 0), *parts)
        x = own + F.conv2d(above, block.vertical_to_horizontal.weight,
                           block.vertical_to_horizontal.bias)
        y = one_by_one(gated(x, block.horizontal_gate), block.out, features, features)
        h = y if i == 0 else h + y
        v = gated(above, block.vertical_gate) if i < len(model.blocks) - 1 else None
    x = one_by_one(h.relu(), model.hidden, features, hidden)
    x = one_by_one(x.relu(), model.logits, hidden, logits)
    channels = x.split(config.levels, dim=1)  # (B, levels, H, W) each
    return torch.stack(channels, dim=2)


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("height, width", [(6, 9), (9, 6), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("channels, hidden_dim, out_hidden_dim, labels, blocks_num", [
    (1, 4, 3, 0, 1), (1, 5, 6, 3, 3), (3, 7, 5, 0, 1), (3, 8, 7, 3, 2), (3, 4, 4, 2, 4)])
def test_equals_full_masked_kernels_in_outputs_and_all_gradients(
        channels, hidden_dim, out_hidden_dim, labels, blocks_num, height, width, position):
    model = network(levels=4, channels=channels, hidden_dim=hidden_dim, blocks_num=blocks_num,
                    out_hidden_dim=out_hidden_dim, labels=labels, position=position)
    codes = images(2, height, width, model.config)
    label = labels_for(2, model.config)
    actual, wanted = model(codes, label), slow_reference(model, codes, label)
    assert wanted.std() > 0.01
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)

    direction, parameters = torch.randn_like(actual), dict(model.named_parameters())
    grads, wanted_grads = (
        torch.autograd.grad((out * direction).sum(), list(parameters.values()))
        for out in (actual, wanted))
    for name, grad, wanted_grad in zip(parameters, grads, wanted_grads, strict=True):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-9, atol=1e-9,
                                   msg=lambda text, name=name: f"gradient of {name}: {text}")


# ------------------------------------------------------------------------------ parameters

@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("blocks_num", [1, 2, 4])
@pytest.mark.parametrize("channels, labels", [(1, 0), (1, 3), (3, 0), (3, 3)])
def test_every_unmasked_weight_has_a_gradient(channels, labels, blocks_num, position):
    grads = {}
    for seed in range(6):
        model = network(seed, levels=4, channels=channels, hidden_dim=7, out_hidden_dim=8,
                        blocks_num=blocks_num, labels=labels, position=position)
        codes = images(6, 7, 8, model.config)
        F.cross_entropy(model(codes, labels_for(6, model.config)), codes).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} is unused"
            grads[name] = grads.get(name, 0) + parameter.grad.abs()
    hidden = {f"{name}.weight": module.mask for name, module in model.named_modules()
              if getattr(module, "mask", None) is not None}
    assert bool(hidden) == (channels == 3)
    for name, grad in grads.items():
        mask = hidden.get(name, torch.ones(())).expand(grad.shape).bool()
        assert (grad[mask] != 0).all(), f"{name} has dead weights"
        assert (grad[~mask] == 0).all(), f"{name} learns through its mask"


def test_noise_behind_the_masks_changes_nothing():
    model = network(levels=4, channels=3, hidden_dim=7, out_hidden_dim=5, blocks_num=3)
    codes = images(2, 5, 4, model.config)
    before, disturbed = model(codes), 0
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "mask", None) is not None:
                module.weight.add_(1e3 * (1 - module.mask))
                disturbed += 1
    # `here` and `out` of three blocks, and the two layers before the logits
    assert disturbed == 8
    assert torch.equal(before, model(codes))
