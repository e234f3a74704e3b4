"""PixelCNN's blocks in compiled loops, against the plain network in double precision."""

import copy
import gc
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_pixelcnn import images, labels_for

from models import compiled_blocks
from models.compiled import suits_blocks
from models.kernels.vectors import HALF, TILE
from models.pixelcnn import PixelCNN, PixelCNNConfig

NETWORKS = {  # width, channels and the rest; widths that fill vectors, and that don't
    "one feature": dict(hidden_dim=1, out_hidden_dim=1, blocks_num=1),
    "one block": dict(channels=3, hidden_dim=5, out_hidden_dim=4, blocks_num=1, labels=2),
    "a feature per channel": dict(channels=3, hidden_dim=3, out_hidden_dim=3, blocks_num=2),
    "labels": dict(hidden_dim=HALF, blocks_num=4, labels=3),
    "vectors": dict(channels=2, hidden_dim=TILE, blocks_num=3, vector=4),
    "position": dict(channels=3, hidden_dim=TILE + HALF, blocks_num=3, position=True),
    "position, one block": dict(hidden_dim=HALF, blocks_num=1, position=True),
    "embedding": dict(hidden_dim=HALF, blocks_num=3, embedding=5),
    "embedding, one block": dict(channels=3, hidden_dim=9, blocks_num=1, embedding=1),
    "all": dict(channels=3, hidden_dim=HALF + 3, blocks_num=4, labels=3, position=True,
                embedding=2),
}


@pytest.fixture(autouse=True)
def set_threads(monkeypatch):
    """Two threads for compiled loops, or as many as a test sets; one for torch's own operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def set_threads(count):
        monkeypatch.setattr(torch, "get_num_threads", lambda: count)

    set_threads(2)
    yield set_threads
    torch.set_num_threads(before)


def network(seed=0, dropout=0.0, **config):
    """A network in single precision, and the same in double precision."""
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(levels=4, **config))
    model.dropout = dropout
    return model, copy.deepcopy(model).double()


def run(model, codes, label):
    """The logits, and the gradient of a random sum of them for each parameter by name."""
    torch.manual_seed(1)  # of the dropout
    logits = model(codes, label)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad((logits * direction.to(logits.dtype)).sum(), parameters)
    return logits, dict(zip(names, grads, strict=True))


def assert_close(actual, wanted, name, error=1e-5):
    assert actual.dtype == torch.float32
    largest = wanted.abs().max()
    assert (actual - wanted).abs().max() <= error * largest, name


@pytest.mark.parametrize("dropout", [0, 0.3])
@pytest.mark.parametrize("batch, height, width", [(2, 7, 9), (4, 1, 1), (6, 1, 8), (2, 8, 1)])
@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_equals_the_plain_network_in_outputs_and_all_gradients(config, batch, height, width,
                                                               dropout):
    model, plain = network(dropout=dropout, **config)
    codes, label = images(batch, height, width, model.config), labels_for(batch, model.config)
    (logits, grads), (wanted, wanted_grads) = (run(each, codes, label) for each in (model, plain))
    assert_close(logits, wanted, "logits")
    for name, grad in grads.items():
        assert_close(grad, wanted_grads[name], name)


@pytest.mark.parametrize("batch", [1, 2])
def test_one_thread_computes_any_batch(batch, set_threads):
    set_threads(1)
    model, plain = network(channels=3, hidden_dim=9, blocks_num=3, labels=2)
    codes, label = images(batch, 28, 28, model.config), labels_for(batch, model.config)
    assert suits_blocks(model.blocks, codes.float())
    (logits, grads), (wanted, wanted_grads) = (run(each, codes, label) for each in (model, plain))
    assert_close(logits, wanted, "logits")
    for name, grad in grads.items():
        assert_close(grad, wanted_grads[name], name)


@pytest.mark.parametrize("batch, threads, compiled", [
    (0, 2, False), (1, 1, True), (1, 2, False), (3, 2, False), (4, 2, True), (5, 2, True),
    (16, 16, True), (20, 16, False)])
def test_a_batch_that_threads_cannot_share_is_left_to_torch(batch, threads, compiled, set_threads):
    set_threads(threads)
    model, plain = network(hidden_dim=2, blocks_num=2)
    image = torch.zeros(batch, 2, 2, 1)
    assert suits_blocks(model.blocks, image) == compiled
    assert not suits_blocks(model.blocks, image.bfloat16())
    assert not suits_blocks(plain.blocks, image.double())


def test_without_gradients_nothing_is_kept_and_the_logits_are_the_same():
    model, _ = network(channels=3, hidden_dim=TILE, blocks_num=5, labels=3)
    codes, label = images(4, 6, 5, model.config), labels_for(4, model.config)
    logits = model(codes, label)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(model(codes, label), logits)


def test_an_image_has_the_same_logits_in_any_batch_on_any_number_of_threads(set_threads):
    model, _ = network(channels=3, hidden_dim=11, blocks_num=3)
    codes = images(8, 6, 5, model.config)
    together = model(codes)
    set_threads(1)
    assert torch.equal(model(codes), together)
    assert torch.equal(model(codes[3:4]), together[3:4])


def test_the_same_images_give_the_same_bits():
    model, _ = network(channels=3, hidden_dim=9, blocks_num=3, labels=2, position=True)
    codes, label = images(4, 8, 8, model.config), labels_for(4, model.config)
    (logits, grads), (again, grads_again) = (run(model, codes, label) for _ in range(2))
    assert torch.equal(logits, again)
    assert all(torch.equal(grad, grads_again[name]) for name, grad in grads.items())


@pytest.mark.parametrize("hidden_dim", [HALF, 3])  # in vectors, and in plain floats
@pytest.mark.parametrize("name", ["blocks.1.vertical.bias", "blocks.0.left.weight"])
def test_nan_reaches_the_loss(name, hidden_dim):
    """A run that diverges must end, and not go on with gates that hide it."""
    model, _ = network(hidden_dim=hidden_dim, blocks_num=3)
    codes = images(2, 6, 6, model.config)
    model.get_parameter(name).data.view(-1)[0] = float("nan")
    assert F.cross_entropy(model(codes), codes).isnan()


def test_large_inputs_saturate():
    model, plain = network(hidden_dim=HALF + 1, blocks_num=2)
    for each in (model, plain):
        each.blocks[0].vertical.weight.data.mul_(1e4)
        each.blocks[1].left.weight.data.mul_(1e4)
    codes = images(2, 6, 6, model.config)
    (logits, grads), (wanted, _) = (run(each, codes, None) for each in (model, plain))
    assert_close(logits, wanted, "logits", error=1e-3)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_weights_that_change_before_the_backward_pass_are_refused():
    model, _ = network(hidden_dim=4, blocks_num=2)
    logits = model(images(2, 4, 4, model.config))
    with torch.no_grad():
        model.blocks[1].vertical.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logits.sum().backward()


def test_memory_does_not_grow_from_step_to_step():
    model, _ = network(channels=3, hidden_dim=32, blocks_num=3)
    codes = images(8, 16, 16, model.config)

    def resident():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    sizes = []
    for _ in range(20):
        model(codes).sum().backward()
        sizes.append(resident())
    assert sizes[-1] - sizes[9] < 20e6


@pytest.mark.parametrize("name", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_called(name):
    model, _ = network(hidden_dim=4, blocks_num=3)
    called = []
    getattr(model.blocks[1].horizontal_gate, name)(lambda *_: called.append(1))
    model(images(2, 4, 4, model.config))
    assert called


def test_the_plain_form_is_used_where_compiled_loops_are_not(monkeypatch):
    monkeypatch.setattr(compiled_blocks, "compute_blocks", lambda *_: pytest.fail("compiled"))
    model, plain = network(hidden_dim=4, blocks_num=2)
    codes = images(2, 4, 4, model.config)
    plain(codes)
    model.compute_dtype = torch.bfloat16
    model(codes)
