"""The protocol of extensions: calls, state in snapshots, the end; and settings made of flags."""

import pytest
from test_trainer import trainer_of

from cli.training_request import parameters_as_flags
from common.errors import UserError
from models.model_file import copy_to_cpu, model_content, read, save
from models.pixelcnn import PixelCNNConfig
from training.extensions.extension import Extension
from training.extensions.print_report import PrintReport
from training.stopping import StopCondition


class LossHistory(Extension):
    """Remembers the loss of each update."""

    name = "LossHistory"

    def __init__(self):
        self.losses, self.finalized = [], 0

    def __call__(self, trainer):
        self.losses.append(trainer.observation["main/nll"])

    def state_dict(self):
        return {"losses": list(self.losses)}

    def load_state_dict(self, state):
        self.losses = list(state["losses"])

    def finalize(self):
        self.finalized += 1


def with_history(stop):
    trainer, history = trainer_of(stop), LossHistory()
    trainer.extend(history, (1, "iteration"))
    return trainer, history


def test_the_state_of_an_extension_survives_a_snapshot(tmp_path):
    whole, whole_history = with_history(StopCondition(epoch=2))
    whole.run()
    first, _ = with_history(StopCondition(epoch=1))
    first.run()
    save(tmp_path / "snapshot_iter_6", {
        **model_content("pixelcnn", first.model, ["a", "b"],
                   {"levels": 2, "channels": 1, "height": 6, "width": 6}),
        "run": copy_to_cpu(first.state_dict())})
    content = read(tmp_path / "snapshot_iter_6", "pixelcnn")
    second, history = with_history(StopCondition(epoch=2))
    second.model.load_state_dict(content["weights"])
    second.load_state_dict(content["run"])
    second.run()
    assert len(history.losses) == 12 and history.losses == whole_history.losses


def test_an_extension_that_a_snapshot_does_not_know_starts_fresh():
    first = trainer_of(StopCondition(epoch=1))
    first.run()
    second, history = with_history(StopCondition(epoch=2))
    second.load_state_dict(first.state_dict())
    second.run()
    assert len(history.losses) == 6


def test_only_named_extensions_are_in_a_snapshot():
    trainer, _ = with_history(StopCondition(iterations=1))
    trainer.extend(lambda trainer: None)
    trainer.extend(PrintReport())
    assert list(trainer.state_dict()["extensions"]) == ["LossHistory", "PrintReport"]


def test_two_extensions_of_one_name_are_refused():
    trainer, _ = with_history(StopCondition(iterations=1))
    with pytest.raises(ValueError, match="LossHistory"):
        trainer.extend(LossHistory())


@pytest.mark.parametrize("rate", [3e-3, float("inf")], ids=["complete", "diverged"])
def test_an_extension_is_finalized_once_however_training_ends(rate):
    trainer, history = trainer_of(StopCondition(iterations=3), learning_rate=rate), LossHistory()
    trainer.extend(history)
    try:
        trainer.run()
    except UserError:
        assert rate == float("inf")
    assert history.finalized == 1


@pytest.mark.parametrize("parameters, message", [
    (dict(levels=1), "--levels 1: the least is 2"),
    (dict(channels=3, out_hidden_dim=2), "--out_hidden_dim 2: a picture of 3 channels needs"),
    (dict(blocks_num=5000), "--blocks_num 5000: the most is 4096"),
    (dict(labels=2, vector=3), "labels 2 and vector 3: "),
])
def test_a_librarys_parameters_become_flags(parameters, message):
    with pytest.raises(ValueError) as library:
        PixelCNNConfig(**parameters)
    assert "--" not in str(library.value)
    with (pytest.raises(UserError) as command_line,
          parameters_as_flags("levels", "hidden_dim", "out_hidden_dim", "blocks_num")):
        PixelCNNConfig(**parameters)
    assert str(command_line.value).startswith(message)
