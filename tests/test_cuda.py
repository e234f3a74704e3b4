"""What differs on CUDA; skipped without a GPU. test_elsewhere.py has what a CPU can show of it.

    python -m pytest tests/test_cuda.py tests/test_cuda_scripts.py
"""


import pytest
import torch
from test_trainer import images

from datasets.batches import Batch, evaluation_batches, training_batches
from models.dropout import dropout_mask
from models.gated import gate
from models.local_conditioning import Frames
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import pixelcnn, wavenet
from sampling.random_streams import RandomStreams
from training import likelihood
from training.device import select_device, tf32
from training.optimization import make_optimizer
from training.stopping import StopCondition
from training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA on this machine")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module", autouse=True)
def _as_scripts_compute():
    """In full single precision, and the same again."""
    if torch.cuda.is_available():
        select_device(0)


def networks():
    """Networks with everything that they can be conditioned on, and batches for them."""
    torch.manual_seed(0)
    codes, label = torch.randint(4, (3, 3, 7, 8)), torch.tensor([0, 1, 0])
    for config, condition in ((dict(labels=2), label), (dict(vector=5), torch.randn(3, 5)),
                              (dict(position=True), None)):
        yield (PixelCNN(PixelCNNConfig(4, 3, 12, 9, 4, **config)), Batch(codes, codes, condition))
    plain, rich = WaveNetConfig(16, 8, 8, 2, 4), WaveNetConfig(16, 8, 8, 2, 4, 2, 5, 10)
    codes = torch.randint(16, (3, plain.receptive_field + 30))
    codes[:, :9] = 8  # silence: one column is computed
    targets = torch.randint(16, (3, 31))
    frames = Frames(torch.randn(3, 14, 5), torch.ones(3, 14, dtype=torch.bool),
                    torch.tensor([30, 33, 41]))
    yield WaveNet(plain), Batch(codes, targets, None)
    yield WaveNet(rich), Batch(codes, targets, label, frames)


NETWORKS = [*networks()]
IDS = ("labels", "vectors", "position", "sound", "features")
EACH = pytest.mark.parametrize("network, batch", NETWORKS, ids=IDS)


def results(network, batch, device, dtype=torch.float32, precision="fp32"):
    """Each item's nats, and the gradient, all of it in a row: in double precision on the CPU."""
    kind = type(network)(network.config)
    kind.load_state_dict(network.state_dict())
    kind.to(device, dtype)
    if batch.frames is not None:
        batch = batch._replace(frames=batch.frames._replace(values=batch.frames.values.to(dtype)))
    with likelihood.matmul_precision(kind, precision):
        nats = likelihood.nll(kind, batch.to(device), "each")
        nats.mean().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in kind.parameters()])
    return [part.detach().cpu().double() for part in (nats, gradient)]


def worst(found, wanted):
    """The largest of the relative errors, each that of a whole tensor."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


# ------------------------------------------------------------------------------ the networks

@EACH
def test_likelihoods_and_gradients_are_the_cpus(network, batch):
    """Against the CPU in double precision; so fp32 is no tf32, whose error is a thousandth."""
    wanted = results(network, batch, CPU, torch.float64)
    assert worst(results(network, batch, CUDA, torch.float64), wanted) < 1e-9
    assert worst(results(network, batch, CUDA), wanted) < 5e-5
    assert worst(results(network, batch, CUDA, precision="tf32"), wanted) < 0.02
    assert worst(results(network, batch, CUDA, precision="bf16"), wanted) < 0.1


def test_tf32_is_computed_where_it_is_asked_for_alone():
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("a GPU without tf32")
    torch.manual_seed(0)
    x, kernel = torch.randn(4, 256, 16, 16, device=CUDA), torch.randn(256, 256, 3, 3, device=CUDA)
    square = kernel.flatten(1)
    exact = (torch.nn.functional.conv2d(x.double(), kernel.double()),
             square.double() @ square.double().t())

    def errors():
        found = torch.nn.functional.conv2d(x, kernel), square @ square.t()
        return [float((a - b).abs().max() / b.abs().max())
                for a, b in zip(found, exact, strict=True)]

    assert max(errors()) < 1e-5
    with tf32(True):
        assert min(errors()) > 1e-5


@EACH
def test_a_step_is_the_same_again(network, batch):
    first, second = (results(network, batch, CUDA) for _ in range(2))
    assert all(map(torch.equal, first, second))


def test_the_gate_with_conditions_and_rows_above():
    torch.manual_seed(0)
    parts = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 4, 5, 8), (3, 1, 1, 8))]

    def found(device):
        used = [part.to(device).requires_grad_() for part in parts]
        y = gate(*used, rows_above=1)
        y.square().sum().backward()
        return [part.detach().cpu() for part in (y, *(one.grad for one in used))]

    assert worst(found(CUDA), found(CPU)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_leaves_out_its_part_and_keeps_the_mean(dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 1000, dtype=dtype, device=CUDA)
    mask = dropout_mask(x, 0.25)
    assert (mask.device, mask.dtype, mask.shape) == (x.device, dtype, x.shape)
    assert float((mask == 0).float().mean()) == pytest.approx(0.25, abs=0.003)
    assert float(mask.float().mean()) == pytest.approx(1, abs=0.01)
    torch.manual_seed(0)  # seeds CUDA too
    assert torch.equal(dropout_mask(x, 0.25), mask)


@EACH
def test_dropout_has_the_gradient_of_what_it_left_in(network, batch):
    """The same mask again: the loss moves along the gradient as it says."""
    network = type(network)(network.config).to(CUDA, torch.float64)
    network.dropout = 0.4
    if batch.frames is not None:
        batch = batch._replace(frames=batch.frames._replace(values=batch.frames.values.double()))

    def loss():
        torch.manual_seed(1)
        return likelihood.nll(network, batch.to(CUDA))

    loss().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    square = sum(float(gradient.square().sum()) for gradient in gradients)
    moved = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=sign * 1e-5)
            moved.append(float(loss()))
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=sign * 1e-5)
    assert (moved[0] - moved[1]) / 2e-5 == pytest.approx(square, rel=1e-3)


# ------------------------------------------------------------------------------ training

def trainer_on(device, network=None, steps=6, **options):
    torch.manual_seed(3)
    model = (network or PixelCNN(PixelCNNConfig(2, 1, 6, 5, 2, labels=2))).to(device)
    return Trainer(model, make_optimizer("adam", model.parameters(), 3e-3, 1e-4), images(),
                   batchsize=4, seed=3, clip=1.0, stop=StopCondition(iterations=steps),
                   device=device,
                   samples=lambda batch: len(batch.codes), unit="images", **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned_and_copied_whole(workers):
    dataset = images()
    for batch in training_batches(dataset, 4, seed=0, epoch=0, workers=workers, pinned=True):
        assert batch.codes.is_pinned() and batch.label.is_pinned()
        there = batch.to(CUDA)
        assert there.codes.device == CUDA
        assert torch.equal(there.codes.cpu(), batch.codes)
        assert torch.equal(there.label.cpu(), batch.label)


def test_adam_counts_its_steps_there():
    trainer = trainer_on(CUDA, ema=0.9)
    trainer.run()
    for kept in trainer.optimizer.state.values():
        assert {value.device for value in kept.values()} == {CUDA}
    assert {weight.device for weight in trainer.eval_model.parameters()} == {CUDA}


def test_an_evaluation_is_the_cpus_and_the_same_again():
    network, found = PixelCNN(PixelCNNConfig(2, 1, 6, 5, 2, labels=2)), []
    for device in (CPU, CUDA, CUDA):
        found.append(likelihood.evaluate_labels(
            network.to(device), evaluation_batches(images(), 5, pinned=device == CUDA), device, 2))
    assert found[1] == found[2]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


@EACH
def test_the_memory_of_a_step_does_not_grow(network, batch):
    model = type(network)(network.config)
    trainer, seen = trainer_on(CUDA, model), []
    for _ in range(30):
        trainer.update(batch)
        torch.cuda.synchronize()
        seen.append(torch.cuda.memory_allocated())
    assert max(seen[5:]) == min(seen[5:])


# ------------------------------------------------------------------------------ sampling

@pytest.mark.parametrize("network", [it for it, _ in NETWORKS[:3]], ids=IDS[:3])
@pytest.mark.parametrize("rows", [0, 2])
def test_images_cached_there_are_those_that_the_network_draws(network, rows, record_logits):
    seen, found = record_logits(), []
    model = type(network)(network.config).double().eval()
    model.load_state_dict(network.state_dict())
    condition = next(batch.label for it, batch in NETWORKS if it is network)
    given = torch.randint(4, (3, 3, rows, 4))
    for sampler, device in ((pixelcnn.CachedPixelCNNSampler, CUDA),
                            (pixelcnn.NaivePixelCNNSampler, CUDA),
                            (pixelcnn.CachedPixelCNNSampler, CPU)):
        seen.clear()
        label = None if condition is None else condition.to(device)
        codes = pixelcnn.sample_images(model.to(device), RandomStreams(0, range(3)), label, 4, 4,
                                       prefix=given, sampler=sampler)
        assert codes.device == CPU
        found.append((codes, torch.stack(seen).cpu()))
    for codes, logits in found[1:]:
        assert torch.equal(codes, found[0][0])
        torch.testing.assert_close(logits, found[0][1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("network", [it for it, _ in NETWORKS[3:]], ids=IDS[3:])
@pytest.mark.parametrize("primed", [0, 5])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sounds_cached_there_are_those_that_the_network_draws(network, primed, precision,
                                                              record_logits):
    seen, found = record_logits(), []
    model = type(network)(network.config).double().eval()
    model.load_state_dict(network.state_dict())
    prime = torch.randint(16, (3, primed))
    frames = torch.randn(3, 12, 5, dtype=torch.float64) if network.config.features else None
    for sampler, device in ((wavenet.CachedWaveNetSampler, CUDA),
                            (wavenet.NaiveWaveNetSampler, CUDA),
                            (wavenet.CachedWaveNetSampler, CPU)):
        seen.clear()
        label = torch.tensor([0, 1, 0], device=device) if network.config.labels else None
        codes = torch.cat([*wavenet.sample_sounds(
            model.to(device), RandomStreams(0, range(3)), label, 100, top_p=0.9, prime=prime,
            precision=precision, frames=frames, sampler=sampler)], dim=1)
        assert codes.device == CPU
        found.append((codes, torch.stack(seen).cpu()))
    for codes, logits in found[1:]:
        assert torch.equal(codes, found[0][0])
        torch.testing.assert_close(logits, found[0][1], rtol=0, atol=1e-9)


def test_in_single_precision_logits_are_the_cpus():
    network = NETWORKS[0][0].eval()
    codes = torch.randint(4, (3, 3, 7, 8))
    label = torch.tensor([0, 1, 0])
    with torch.inference_mode():
        here = network.cpu()(codes, label)
        there = network.to(CUDA)(codes.to(CUDA), label.to(CUDA)).cpu()
    network.cpu()
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)
