"""The training loop: what a run learns, when it stops, and that a resumed run is the same run."""

import json
import math

import numpy as np
import pytest
import torch

from common.errors import UserError
from datasets.images.dataset import ImageCodes
from models.pixelcnn import PixelCNN, PixelCNNConfig
from training import likelihood
from training.extensions.best_model import BestModel
from training.extensions.evaluator import Evaluator
from training.extensions.extension import Extension
from training.extensions.log_report import LogReport
from training.extensions.tensorboard import Board, TensorBoardReport
from training.stopping import StopCondition
from training.trainer import DivergedError, Trainer

IMAGES = 22


def images(count=IMAGES, seed=0):
    """Images with something to learn: each is one of two patterns, with a little noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    patterns = np.array([np.eye(6), np.fliplr(np.eye(6))]) * 255
    noise = generator.random((count, 1, 6, 6)) < 0.03
    pixels = np.where(noise, 255 - patterns[labels][:, None], patterns[labels][:, None])
    return ImageCodes(pixels.astype(np.uint8), labels, 2, binarize="sampled")


def trainer_of(stop, seed=3, learning_rate=3e-3):
    torch.manual_seed(seed)
    model = PixelCNN(PixelCNNConfig(2, 1, 6, 5, 2, labels=2))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    return Trainer(model, optimizer, images(), batchsize=4, seed=seed, clip=1.0, stop=stop,
                   device=torch.device("cpu"), samples=lambda batch: len(batch.codes),
                   unit="images", dimensions=36)


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


class Recorder(Extension):
    """Notes when it is called."""

    def __init__(self):
        self.calls = []

    def __call__(self, trainer):
        self.calls.append((trainer.iteration, trainer.epoch))


def test_training_lowers_the_loss_far_below_chance():
    trainer = trainer_of(StopCondition(epoch=30))
    trainer.run()
    mean = likelihood.evaluate(trainer.model, [images(40, seed=9)[range(40)]],
                               torch.device("cpu"))
    assert mean < 0.5 * math.log(2)


@pytest.mark.parametrize("cut", [1, 4, 6, 9])
def test_a_run_resumed_at_any_iteration_ends_with_the_same_weights(cut):
    whole = trainer_of(StopCondition(iterations=13))
    whole.run()
    first = trainer_of(StopCondition(iterations=cut))
    first.run()
    second = trainer_of(StopCondition(iterations=13), seed=3)
    with torch.no_grad():
        for parameter in second.model.parameters():
            parameter.zero_()
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    torch.rand(7)  # a resumed run takes up the random state too
    second.load_state_dict(first.state_dict())
    second.run()
    assert torch.equal(weights(whole), weights(second))
    assert (second.iteration, second.epoch, second.position) == (13, 2, 4)


def test_another_seed_gives_other_weights():
    runs = [trainer_of(StopCondition(iterations=5), seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        run.run()
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_triggers_fire_at_iterations_epochs_and_both():
    trainer = trainer_of(StopCondition(epoch=3))
    recorders = {trigger: Recorder() for trigger in
                 [(4, "iteration"), (1, "epoch"), (2, "epoch"), (4, "both")]}
    for trigger, recorder in recorders.items():
        trainer.extend(recorder, trigger)
    trainer.run()  # 22 images in batches of 4: 6 updates an epoch
    called = {trigger: recorder.calls for trigger, recorder in recorders.items()}
    assert called[4, "iteration"] == [(4, 0), (8, 1), (12, 2), (16, 2)]
    assert called[1, "epoch"] == [(6, 1), (12, 2), (18, 3)]
    assert called[2, "epoch"] == [(12, 2)]
    assert called[4, "both"] == [(4, 0), (6, 1), (8, 1), (12, 2), (16, 2), (18, 3)]


def test_a_run_that_ends_in_mid_epoch_calls_extensions_as_at_an_epochs_end():
    trainer, recorder = trainer_of(StopCondition(iterations=8)), Recorder()
    trainer.extend(recorder)
    trainer.run()
    assert recorder.calls == [(6, 1), (8, 1)]
    assert trainer.reason == "--iterations 8 reached"


def test_all_extensions_are_finalized_even_if_one_fails():
    def finisher(number, wrong):
        def finish():
            told.append(number)
            if wrong:
                raise OSError("no room")

        extension = Recorder()
        extension.finalize = finish
        return extension

    trainer, told = trainer_of(StopCondition(iterations=1)), []
    for number, wrong in enumerate([False, True, False]):
        trainer.extend(finisher(number, wrong))
    with pytest.raises(OSError, match="no room"):
        trainer.run()
    assert told == [0, 1, 2]


def test_an_epoch_uses_every_image_once_in_a_new_order():
    trainer = trainer_of(StopCondition(epoch=2))
    seen, dataset = [], trainer.dataset
    get = type(dataset).__getitem__

    class Spy(type(dataset)):
        def __getitem__(self, indices):
            seen.extend(indices)
            return get(self, indices)

    dataset.__class__ = Spy
    trainer.run()
    first, second = seen[:IMAGES], seen[IMAGES:]
    assert sorted(first) == sorted(second) == list(range(IMAGES))
    assert first != second != sorted(second)


def test_target_loss_is_compared_with_the_logs_mean(tmp_path):
    trainer = trainer_of(StopCondition(epoch=200, target_loss=0.4))
    trainer.extend(LogReport(tmp_path), (5, "both"))
    trainer.run()
    assert trainer.log[-1]["main/nll"] <= 0.4 < trainer.log[-2]["main/nll"]
    assert "--target_loss 0.4" in trainer.reason


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change():
    trainer = trainer_of(StopCondition(epoch=9))

    def poison(trainer):
        before.append(weights(trainer))
        with torch.no_grad():
            trainer.model.logits.bias.fill_(math.inf)

    before = []
    trainer.extend(poison, (4, "iteration"))
    with pytest.raises(DivergedError, match="iteration 5: the loss is not finite"):
        trainer.run()
    assert trainer.iteration == 4
    others = [p for name, p in trainer.model.named_parameters() if name != "logits.bias"]
    assert all(torch.isfinite(p).all() for p in others)


def test_gradients_are_clipped():
    trainer = trainer_of(StopCondition(iterations=1))
    trainer.clip = 1e-3
    trainer.run()
    norm = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_evaluation_is_the_mean_over_targets_not_over_batches():
    trainer = trainer_of(StopCondition())
    data = images(5, seed=4)
    together = likelihood.evaluate(trainer.model, [data[range(5)]], torch.device("cpu"))
    apart = likelihood.evaluate(trainer.model, [data[[0, 1, 2, 3]], data[[4]]],
                                torch.device("cpu"))
    assert together == pytest.approx(apart, abs=1e-6)
    assert trainer.model.training


def test_the_log_has_means_of_the_interval_and_the_observation(tmp_path):
    trainer = trainer_of(StopCondition(epoch=2))
    losses = []
    trainer.extend(lambda trainer: losses.append(trainer.observation["main/nll"]),
                   (1, "iteration"))
    trainer.extend(Evaluator(images(7, seed=5), 4))
    trainer.extend(LogReport(tmp_path), (100, "both"))
    trainer.run()
    log = json.loads((tmp_path / "log").read_text())
    assert [(entry["epoch"], entry["iteration"]) for entry in log] == [(1, 6), (2, 12)]
    counts = np.array([4, 4, 4, 4, 4, 2])
    assert log[0]["main/nll"] == pytest.approx(np.average(losses[:6], weights=counts))
    for prefix in ("main", "validation/main"):
        nll = log[1][f"{prefix}/nll"]
        assert log[1][f"{prefix}/bits/dim"] == pytest.approx(nll / math.log(2))
        assert log[1][f"{prefix}/nats"] == pytest.approx(nll * 36)
    assert log[1]["elapsed_time"] > log[0]["elapsed_time"] > 0 < log[0]["samples_per_second"]


def test_the_best_model_is_kept_and_only_that(tmp_path):
    trainer = trainer_of(StopCondition(epoch=4))
    trainer.extend(LogReport(tmp_path))
    validation = iter([0.5, 0.3, 0.7, 0.2])
    trainer.extend(lambda trainer: trainer.observation.update(
        {"validation/main/nll": next(validation)}))
    kept = []
    best = BestModel(tmp_path, lambda: {"kind": "pixelcnn"})
    trainer.extend(best)
    trainer.extend(lambda trainer: kept.append(
        sorted(path.name for path in tmp_path.glob("pixelcnn_*"))))
    trainer.run()
    assert kept == [["pixelcnn_6"], ["pixelcnn_12"], ["pixelcnn_12"], ["pixelcnn_24"]]
    again = BestModel(tmp_path, dict)
    again.load_state_dict(best.state_dict())
    assert (again.nll, again.path) == (0.2, tmp_path / "pixelcnn_24")


def test_tensorboard_shows_each_entry_once_after_resumptions(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def trainer_with_report(stop):
        trainer = trainer_of(stop)
        trainer.extend(LogReport(tmp_path))
        trainer.extend(TensorBoardReport(Board(tmp_path)))
        return trainer

    first = trainer_with_report(StopCondition(epoch=2))
    first.run()
    state = first.state_dict()
    for lost in (trainer_with_report(StopCondition(epoch=epoch)) for epoch in (3, 4)):
        lost.load_state_dict(state)  # killed after epoch 3, and gone on from epoch 2
        lost.run()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    seen = events.Scalars("main/nll")
    assert [event.step for event in seen] == [6, 12, 18, 24]
    assert [event.value for event in seen] == pytest.approx(
        [entry["main/nll"] for entry in lost.log], rel=1e-6)


def test_the_logs_means_stay_if_the_run_ends_right_after_an_entry(tmp_path):
    trainer, losses = trainer_of(StopCondition(iterations=5)), []
    trainer.extend(lambda trainer: losses.append(trainer.observation["main/nll"]),
                   (1, "iteration"))
    trainer.extend(Evaluator(images(7, seed=5), 4))
    trainer.extend(LogReport(tmp_path), (5, "both"))
    trainer.extend(TensorBoardReport(Board(tmp_path)), (5, "both"))
    trainer.run()
    assert len(trainer.log) == 1 and "validation/main/nll" in trainer.log[0]
    assert trainer.log[0]["main/nll"] == pytest.approx(np.mean(losses[:5]))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Scalars("validation/main/nll")) == len(events.Scalars("main/nll")) == 1


def test_without_validation_the_epochs_mean_decides_which_model_is_best(tmp_path):
    trainer = trainer_of(StopCondition(epoch=1))
    losses = []
    trainer.extend(lambda trainer: losses.append(trainer.observation["main/nll"]),
                   (1, "iteration"))
    trainer.extend(LogReport(tmp_path), (4, "both"))
    best = BestModel(tmp_path, lambda: {"kind": "pixelcnn"})
    trainer.extend(best)
    trainer.run()
    counts = [4, 4, 4, 4]  # of the first entry; the second is of 4 images and 2
    last = np.average(losses[4:6], weights=[4, 2])
    assert best.nll == pytest.approx((4 * np.average(losses[:4], weights=counts) + 2 * last) / 6)


def test_a_run_is_not_resumed_on_other_data():
    first = trainer_of(StopCondition(iterations=8))
    first.run()
    second = trainer_of(StopCondition(iterations=13))
    second.dataset = images(IMAGES - 4)
    with pytest.raises(UserError, match="had 22 items to train on, this one has 18"):
        second.load_state_dict(first.state_dict())


def test_a_complete_run_that_is_resumed_does_nothing(tmp_path):
    first = trainer_of(StopCondition(iterations=8))
    first.run()
    second, recorder = trainer_of(StopCondition(iterations=8)), Recorder()
    second.extend(recorder, (1, "both"))
    second.load_state_dict(first.state_dict())
    second.run()
    assert recorder.calls == [] and second.reason == "--iterations 8 reached"
