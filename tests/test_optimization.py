"""Optimizers, learning rate schedules, and the average of the weights."""

import math
import signal
from functools import partial

import pytest
import torch
from forks import PIXELCNN, WAVENET, difference, forked, snapshot_in
from test_resume import in_update
from test_trainer import images

from common.errors import UserError
from common.moments import Every
from models import model_file
from models.pixelcnn import PixelCNN, PixelCNNConfig
from training import likelihood
from training.extensions.best_model import BestModel
from training.extensions.evaluator import Evaluator
from training.extensions.snapshots import Snapshot
from training.muon import orthogonalize
from training.optimization import embedding_weights, learning_rate_factor, make_optimizer
from training.stopping import StopCondition
from training.trainer import Trainer

CPU = torch.device("cpu")
OPTIMIZERS = {"adam": 3e-3, "muon": 1e-2, "sgd": 3e-1, "rmsprop": 1e-3}


def trainer_of(stop, optimizer="adam", **options):
    torch.manual_seed(3)
    model = PixelCNN(PixelCNNConfig(2, 1, 6, 5, 2, labels=2))
    return Trainer(model,
                   make_optimizer(optimizer, model.parameters(), OPTIMIZERS[optimizer], 1e-4,
                                  embedding_weights(model)),
                   images(), batchsize=4, seed=3, clip=1.0, stop=stop, device=CPU,
                   samples=lambda batch: len(batch.codes), unit="images", dimensions=36, **options)


def resumed(first, stop, **options):
    """A new trainer that has taken up the run of another."""
    trainer = trainer_of(stop, **options)
    trainer.model.load_state_dict(first.eval_model.state_dict())
    trainer.load_state_dict(model_file.copy_to_cpu(first.state_dict()))
    return trainer


# ------------------------------------------------------------------------------ schedules

@pytest.mark.parametrize("done", [0.0, 0.3, 1.0])
def test_a_constant_rate_is_constant(done):
    assert learning_rate_factor("constant", done) == 1


@pytest.mark.parametrize("done, factor", [
    (0, 0), (0.005, 0.5), (0.01, 1), (0.25, (1 + math.sqrt(0.5)) / 2), (0.5, 0.5),
    (0.75, (1 - math.sqrt(0.5)) / 2), (1, 0), (1.2, 0)])
def test_cosine_rises_and_then_falls_to_0(done, factor):
    assert learning_rate_factor("cosine", done) == pytest.approx(factor, abs=3e-4)


@pytest.mark.parametrize("done, factor", [
    (0, 0), (0.005, 0.5), (0.01, 1), (0.599, 1), (0.601, 0.1), (0.849, 0.1), (0.851, 0.01),
    (1, 0.01)])
def test_step_rises_and_is_then_divided_by_10_twice(done, factor):
    assert learning_rate_factor("step", done) == pytest.approx(factor)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_the_learning_rate_is_a_function_of_the_iteration(schedule):
    def rates_of(trainer):
        seen = []
        trainer.extend(lambda trainer: seen.append(trainer.optimizer.param_groups[0]["lr"]),
                       (1, "iteration"))
        trainer.run()
        return seen

    whole = rates_of(trainer_of(StopCondition(epoch=3), schedule=schedule))
    assert whole == pytest.approx([OPTIMIZERS["adam"] * learning_rate_factor(
        schedule, (i + 0.5) / 18) for i in range(18)])
    first = trainer_of(StopCondition(epoch=3), schedule=schedule)
    first.extend(lambda _: signal.raise_signal(signal.SIGTERM), (6, "iteration"))
    with pytest.raises(SystemExit):
        first.run()
    cut = first.iteration
    second = resumed(first, StopCondition(epoch=3), schedule=schedule)
    assert 0 < cut < 18 and rates_of(second) == whole[cut:]


def test_total_updates_are_those_of_the_first_condition():
    assert trainer_of(StopCondition(epoch=2)).total_updates == 12  # 22 images in batches of 4
    assert trainer_of(StopCondition(epoch=2, iterations=7)).total_updates == 7
    assert trainer_of(StopCondition(epoch=2, iterations=70)).total_updates == 12


# ------------------------------------------------------------------------------ optimizers

@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name):
    trainer = trainer_of(StopCondition(epoch=25), name)
    before = likelihood.evaluate(trainer.model, [images(40, seed=9)[range(40)]], CPU)
    trainer.run()
    after = likelihood.evaluate(trainer.model, [images(40, seed=9)[range(40)]], CPU)
    assert after < 0.75 * before


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("ema", [None, 0.9])
def test_every_optimizer_is_resumed_exactly(name, ema):
    whole, first = (trainer_of(StopCondition(iterations=n), name, ema=ema) for n in (13, 7))
    whole.run()
    first.run()
    second = resumed(first, StopCondition(iterations=13), optimizer=name, ema=ema)
    second.run()
    assert difference(whole.state_dict(), second.state_dict()) == ""
    assert difference(*(dict(trainer.eval_model.state_dict()) for trainer in (whole, second))) == ""


def test_weight_decay_shrinks_weights():
    for name in OPTIMIZERS:
        weight = torch.nn.Parameter(torch.full((3, 1), 2.0))
        optimizer = make_optimizer(name, [weight], 1e-2, 0.5)
        for _ in range(5):
            weight.grad = torch.zeros(3, 1)
            optimizer.step()
        assert (weight < 2).all() and (weight > 0).all(), name


@pytest.mark.parametrize("first, second", [("adam", "sgd"), ("sgd", "adam"), ("adam", "rmsprop"),
                                           ("adam", "muon"), ("muon", "adam")])
def test_resuming_with_another_optimizer_is_refused(first, second):
    run = trainer_of(StopCondition(iterations=3), first)
    run.run()
    with pytest.raises(UserError, match="--optimizer"):
        resumed(run, StopCondition(iterations=5), optimizer=second)


# ------------------------------------------------------------------------------ Muon

@pytest.mark.parametrize("shape", [(4, 9, 9), (3, 20, 7), (2, 7, 20), (5, 1, 6), (1, 64, 3)])
def test_orthogonalising_keeps_the_directions_of_a_matrix(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    s = s.clamp(min=0.1 * s[:, :1])  # smaller ones do not reach 1
    found = u.mT @ orthogonalize(u @ (s[:, :, None] * vt)) @ vt.mT
    values = found.diagonal(dim1=1, dim2=2)
    assert torch.allclose(found, torch.diag_embed(values), atol=1e-9)
    assert (values > 0.6).all() and (values < 1.3).all()


def test_orthogonalising_nothing_is_nothing():
    assert not orthogonalize(torch.zeros(2, 3, 4)).any()


def test_muon_is_torchs_for_matrices_and_adam_for_the_rest():
    generator = torch.Generator().manual_seed(7)
    shapes = [(8, 6), (6, 8), (8, 6), (5,), (8, 2, 1, 3), (5,)]
    ours, theirs = ([torch.nn.Parameter(torch.full(shape, 0.5)) for shape in shapes]
                    for _ in range(2))
    flat = torch.nn.Parameter(theirs[4].detach().flatten(1))
    matrices = [*theirs[:3], flat]
    optimizer = make_optimizer("muon", ours, 1e-2, 0.1)
    others = (torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
              torch.optim.Adam([theirs[3], theirs[5]], lr=1e-2))
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        flat.grad = theirs[4].grad.flatten(1)
        for each in (optimizer, *others):
            each.step()
    theirs[4] = flat.view_as(theirs[4])
    for one, other in zip(ours, theirs, strict=True):
        moved = (other - 0.5).abs().max()  # torch's iteration is in bfloat16
        assert (one - other).abs().max() < (6e-2 if one.ndim > 1 else 1e-5) * moved


def test_muon_shrinks_matrices_by_the_decay_alone():
    weight = torch.nn.Parameter(torch.full((3, 2), 2.0))
    optimizer = make_optimizer("muon", [weight], 1e-2, 0.5)
    for _ in range(5):
        weight.grad = torch.zeros(3, 2)
        optimizer.step()
    assert torch.allclose(weight, torch.tensor(2 * 0.995 ** 5))


def test_muon_leaves_rows_of_embeddings_that_no_batch_uses():
    embedding, matrix = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 2, bias=False)
    model = torch.nn.Sequential(embedding, matrix)
    before = embedding.weight.detach().clone()
    optimizer = make_optimizer("muon", model.parameters(), 1e-2, 0, embedding_weights(model))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.tensor([1, 4])).square().sum().backward()
        optimizer.step()
    changed = (embedding.weight != before).any(dim=1)
    assert changed.tolist() == [False, True, False, False, True, False]
    assert list(optimizer.state[matrix.weight]) == ["momentum_buffer"]
    assert set(optimizer.state[embedding.weight]) == {"step", "exp_avg", "exp_avg_sq"}


def test_muon_leaves_parameters_without_a_gradient():
    matrices, bias = ([torch.nn.Parameter(torch.ones(shape)) for _ in range(2)]
                      for shape in ((3, 2), (3,)))
    optimizer = make_optimizer("muon", [*matrices, *bias], 1e-2, 0)
    optimizer.step()
    matrices[0].grad, bias[0].grad = torch.ones(3, 2), torch.ones(3)
    optimizer.step()
    assert [bool((parameter == 1).all()) for parameter in (*matrices, *bias)] == [
        False, True, False, True]
    assert set(optimizer.state) == {matrices[0], bias[0]}


@pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])
def test_a_run_with_muon_is_resumed_exactly(world, tmp_path, command):
    command = f"{command} --optimizer muon --schedule cosine --learning_rate 1e-2 --ema 0.9"
    forked(f"{command} -o {tmp_path}/whole", world)
    killed = f"{command} -o {tmp_path}/killed --snapshot_every 5 --resume auto"
    forked(killed, world, in_update(13), code=-signal.SIGKILL)
    forked(killed, world)
    whole, resumed = (snapshot_in(tmp_path / name) for name in ("whole", "killed"))
    assert difference(whole, resumed) == ""


# ------------------------------------------------------------------------------ averaged weights

def test_the_average_follows_its_definition():
    trainer, seen = trainer_of(StopCondition(epoch=7), ema=0.7), []

    def look(trainer):
        weights = [p.detach().double().clone() for p in trainer.model.parameters()]
        if not seen:  # the average begins as the weights of the first update
            seen.append(weights)
            return
        n = trainer.iteration - 1
        kept = min(0.7, (1 + n) / (10 + n))
        seen[0] = [kept * a + (1 - kept) * w for a, w in zip(seen[0], weights, strict=True)]

    trainer.extend(look, (1, "iteration"))
    trainer.run()
    assert trainer.eval_model is not trainer.model
    for ours, theirs, moved in zip(seen[0], trainer.eval_model.parameters(),
                                   trainer.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs.double(), atol=1e-6)
        assert not torch.equal(theirs, moved)


def test_averaged_weights_are_evaluated_and_saved(tmp_path):
    trainer = trainer_of(StopCondition(epoch=2), ema=0.9)
    held_back = images(7, seed=5)
    describe = partial(model_file.model_content, "pixelcnn", label_names=["a", "b"],
                       data={"levels": 2, "channels": 1, "height": 8, "width": 8})
    trainer.extend(Evaluator(held_back, 4))
    for extension in (BestModel, partial(Snapshot, every=Every(50))):
        trainer.extend(extension(tmp_path, lambda: describe(model=trainer.eval_model)))
    trainer.run()
    averaged = trainer.eval_model.state_dict()
    expected = likelihood.evaluate(trainer.eval_model, [held_back[range(7)]], CPU)
    moved = likelihood.evaluate(trainer.model, [held_back[range(7)]], CPU)
    assert trainer.observation["validation/main/nll"] == pytest.approx(expected, rel=1e-5)
    assert moved != pytest.approx(expected, rel=1e-3)
    for name in ("pixelcnn_12", "snapshot_iter_12"):
        model = model_file.load(tmp_path / name, "pixelcnn").model  # as sampling does
        assert difference(dict(model.state_dict()), dict(averaged)) == ""
    run = model_file.read(tmp_path / "snapshot_iter_12", "pixelcnn")["run"]
    assert difference(run["weights"], dict(trainer.model.state_dict())) == ""


def test_averaging_can_start_or_stop_at_a_resumption():
    plain = trainer_of(StopCondition(iterations=7))
    plain.run()
    begun = resumed(plain, StopCondition(iterations=7), ema=0.9)
    assert difference(dict(begun.eval_model.state_dict()), dict(plain.model.state_dict())) == ""
    averaged, whole = (trainer_of(StopCondition(iterations=n), ema=e)
                       for n, e in ((7, 0.9), (13, None)))
    averaged.run()
    whole.run()
    left = resumed(averaged, StopCondition(iterations=13))
    left.run()  # on from the weights that were moved, not from their average
    assert difference(dict(left.model.state_dict()), dict(whole.model.state_dict())) == ""


@pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])
def test_a_script_can_start_or_stop_averaging_at_a_resumption(world, tmp_path, command):
    forked(f"{command} -o {tmp_path}/whole", world)
    flags = ("-e 1 --ema 0.9", "-e 2", "-e 3 --ema 0.9")
    for each in flags:
        forked(f"{command} {each} -o {tmp_path}/changed --resume auto", world)
    changed, whole = (snapshot_in(tmp_path / name) for name in ("changed", "whole"))
    assert difference(changed["run"]["weights"], whole["weights"]) == ""
    assert difference(changed["weights"], whole["weights"]) != ""
