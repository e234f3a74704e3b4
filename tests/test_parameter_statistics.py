"""Statistics of weights and gradients, in the log and as histograms."""

import json
import math

import numpy as np
import pytest
from test_trainer import trainer_of

from training.extensions.parameter_statistics import ParameterStatistics
from training.extensions.tensorboard import Board
from training.stopping import StopCondition


def test_statistics_are_those_of_the_tensors(tmp_path):
    trainer = trainer_of(StopCondition(iterations=3))
    trainer.run()
    ParameterStatistics(Board(tmp_path))(trainer)
    seen, parameter = trainer.observation, trainer.model.blocks[1].vertical.weight
    key = "blocks/1/vertical/W"
    for part, values in (("data", parameter.detach()), ("grad", parameter.grad)):
        values = values.numpy()
        for name in ("min", "max", "mean", "std"):
            assert seen[f"{key}/{part}/{name}"] == pytest.approx(
                float(getattr(np, name)(values)), abs=1e-6)
        assert seen[f"{key}/{part}/percentile/3"] == pytest.approx(
            float(np.median(values)), abs=1e-6)
        assert seen[f"{key}/{part}/zeros"] == (values == 0).sum()
    ratio = parameter.grad.norm() / parameter.detach().norm()
    assert seen[f"{key}/ratio"] == pytest.approx(math.log10(ratio), abs=1e-4)
    assert "blocks/1/vertical/b/grad/max" in seen
    json.dumps(seen, allow_nan=False)


def test_histograms_count_every_weight_and_every_gradient(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    trainer = trainer_of(StopCondition(epoch=2))
    trainer.extend(ParameterStatistics(Board(tmp_path)))
    trainer.run()
    events = EventAccumulator(str(tmp_path / "tensorboard"), {"histograms": 0}).Reload()
    names = events.Tags()["histograms"]
    assert len(names) == 2 * len(list(trainer.model.parameters()))
    weight = trainer.model.blocks[1].vertical.weight
    for part, values in (("data", weight.detach()), ("grad", weight.grad)):
        seen = events.Histograms(f"blocks/1/vertical/W/{part}")
        assert [event.step for event in seen] == [6, 12]
        found = seen[-1].histogram_value
        assert found.num == sum(found.bucket) == values.numel()
        assert [found.min, found.max, found.sum] == pytest.approx(
            [x.item() for x in (values.min(), values.max(), values.sum())], abs=1e-5)
