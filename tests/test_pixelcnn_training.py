"""Gated PixelCNN's forward and backward passes against plain convolutions and autograd."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from test_pixelcnn import images, labels_for, network
from torch.nn.parallel import DistributedDataParallel

from models.pixelcnn import PixelCNN, PixelCNNConfig

NETWORKS = [  # channels, hidden_dim, out_hidden_dim, labels, blocks_num
    (1, 1, 1, 0, 1), (1, 5, 7, 3, 1), (1, 4, 3, 0, 2), (2, 5, 4, 0, 3), (3, 3, 3, 0, 1),
    (3, 7, 5, 2, 2), (3, 8, 7, 0, 6)]


def plain(model, codes, label=None):
    """The network in torch's convolutions and autograd, channels first."""
    def conv(x, weight, bias, left, top, right=0):
        return F.conv2d(F.pad(x, (left, right, top, 0)), weight, bias)

    def pointwise(x, layer):
        mask = 1 if layer.mask is None else layer.mask
        return F.conv2d(x, layer.weight * mask, layer.bias)

    def gated(x, gate):
        if gate.condition is not None:
            x = x + gate.condition.weight[label][:, :, None, None]
        f, g = x.chunk(2, 1)
        return f.tanh() * g.sigmoid()

    v = h = model.scale(codes)
    height, width = codes.shape[2:]
    for i, block in enumerate(model.blocks):
        radius = 1 if i else 3
        # With this padding the kernel makes one more row below in the first block; crop it.
        above = conv(v, block.vertical.weight, block.vertical.bias, radius, radius, radius)
        above = above[:, :, :height]
        if block.position is not None:
            above = above + block.position(0, height, width).permute(2, 0, 1)
        x = F.conv2d(above, block.vertical_to_horizontal.weight, block.vertical_to_horizontal.bias)
        x = x + conv(h, block.left.weight, None, radius, 0)[..., :width]
        if block.here is not None:
            x = x + pointwise(h, block.here)
        y = pointwise(gated(x, block.horizontal_gate), block.out)
        h = h + y if i else y
        v = gated(above, block.vertical_gate) if block.vertical_gate is not None else None
    x = pointwise(pointwise(h.relu(), model.hidden).relu(), model.logits)
    return x.unflatten(1, (codes.shape[1], -1)).transpose(1, 2)


def gradients(model, loss):
    """The gradient of each parameter by name, zeros where there is none."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, grads, strict=True))


def assert_equal(actual, wanted):
    for name, grad in wanted.items():
        torch.testing.assert_close(actual[name], grad, rtol=1e-9, atol=1e-9,
                                   msg=lambda text, name=name: f"gradient of {name}: {text}")


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("batch, height, width", [
    (3, 6, 9), (1, 9, 6), (2, 1, 1), (2, 1, 5), (2, 5, 1), (1, 2, 2), (2, 3, 3)])
@pytest.mark.parametrize("channels, hidden_dim, out_hidden_dim, labels, blocks_num", NETWORKS)
def test_outputs_and_all_gradients_equal_plain_convolutions(
        channels, hidden_dim, out_hidden_dim, labels, blocks_num, batch, height, width,
        position):
    model = network(levels=4, channels=channels, hidden_dim=hidden_dim, blocks_num=blocks_num,
                    out_hidden_dim=out_hidden_dim, labels=labels, position=position)
    codes, label = images(batch, height, width, model.config), labels_for(batch, model.config)
    before = codes.clone()
    actual, wanted = model(codes, label), plain(model, codes, label)
    torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(wanted)
    assert_equal(gradients(model, (actual * direction).sum()),
                 gradients(model, (wanted * direction).sum()))
    with torch.inference_mode():
        assert torch.equal(model(codes, label), actual)
    assert torch.equal(codes, before)


@pytest.mark.parametrize("output", [(0, 0, 0, 0, 0), (1, 3, 2, 4, 5), (1, 0, 1, 2, 0)])
def test_gradients_of_a_single_output(output):
    model = network(levels=4, channels=3, hidden_dim=7, blocks_num=3, labels=2)
    codes, label = images(2, 5, 6, model.config), torch.tensor([1, 0])
    assert_equal(gradients(model, model(codes, label)[output]),
                 gradients(model, plain(model, codes, label)[output]))


def test_a_second_derivative_is_refused():
    model = network(hidden_dim=4, blocks_num=2)
    codes = images(1, 4, 4, model.config)
    grad, = torch.autograd.grad(model(codes).square().sum(), model.blocks[1].vertical.weight,
                                create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_same_images_give_the_same_bits(precision):
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(levels=4, channels=3, hidden_dim=9, blocks_num=3, labels=2,
                                    position=True))
    model.compute_dtype = precision
    codes, label = images(4, 8, 8, model.config), labels_for(4, model.config)

    def once():
        logits = model(codes, label)
        return logits, gradients(model, F.cross_entropy(logits, codes))

    (logits, grads), (again, grads_again) = once(), once()
    assert torch.equal(logits, again)
    assert all(torch.equal(grad, grads_again[name]) for name, grad in grads.items())


def test_bfloat16_is_close_and_gradients_have_the_weights_type():
    torch.manual_seed(0)
    model = PixelCNN(PixelCNNConfig(levels=4, channels=3, hidden_dim=32, blocks_num=3, labels=2,
                                    position=True))
    codes, label = images(4, 8, 8, model.config), labels_for(4, model.config)
    logits = model(codes, label)
    grads = gradients(model, F.cross_entropy(logits, codes))
    model.compute_dtype = torch.bfloat16
    rounded = model(codes, label)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - logits).norm() / logits.norm() < 0.02
    of_rounded = gradients(model, F.cross_entropy(rounded, codes))
    assert {grad.dtype for grad in of_rounded.values()} == {torch.float32}
    whole, of_rounded = (torch.cat([grad.flatten() for grad in each.values()])
                         for each in (grads, of_rounded))
    assert (of_rounded - whole).norm() < 0.03 * whole.norm()


def test_dropout_applies_to_training_only():
    model = network(levels=4, hidden_dim=32, blocks_num=3)
    codes = images(2, 5, 5, model.config)
    without = model(codes)
    model.dropout = 0.5
    assert not torch.equal(model(codes), without)
    assert not torch.equal(model(codes), model(codes))
    assert torch.equal(model.eval()(codes), without)


def test_distributed_data_parallel_gives_the_same_gradients(tmp_path):
    model = network(levels=4, channels=3, hidden_dim=5, blocks_num=3, labels=2, position=True)
    codes, label = images(2, 4, 5, model.config), torch.tensor([1, 0])
    wanted = gradients(model, F.cross_entropy(model(codes, label), codes))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        F.cross_entropy(DistributedDataParallel(model)(codes, label), codes).backward()
    finally:
        dist.destroy_process_group()
    assert_equal({name: p.grad for name, p in model.named_parameters()}, wanted)


@pytest.mark.parametrize("labels", [0, 2])
def test_an_empty_batch_has_gradients_of_zero(labels):
    model = PixelCNN(PixelCNNConfig(levels=4, channels=3, hidden_dim=5, blocks_num=3,
                                    labels=labels, position=True))
    codes, label = images(0, 6, 5, model.config), labels_for(0, model.config)
    logits = model(codes, label)
    assert logits.shape == (0, 4, 3, 6, 5)
    grads = gradients(model, F.cross_entropy(logits, codes, reduction="sum"))
    assert len(grads) == len(list(model.parameters()))
    assert not any(grad.any() for grad in grads.values())
