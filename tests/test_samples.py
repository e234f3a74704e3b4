"""Samples drawn during training: when, what, and that the run is not affected."""

import time
import wave

import pytest
import torch
from forks import PIXELCNN, UPDATES, WAVENET, difference, forked, once, snapshot_in
from PIL import Image
from test_begin_and_end import log_of
from test_optimization import trainer_of
from test_resume import at, best_model, check_killed, in_update

from common.moments import Every
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from sampling import image_rendering
from sampling.previews import draw_image_previews, draw_sound_previews
from training.extensions.samples import Samples
from training.extensions.tensorboard import Board
from training.stopping import StopCondition

BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])


def drawn(folder):
    """{name: bytes} of the samples in a run's folder."""
    return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}


def moments(folder):
    """The iterations in a run's folder that there are samples of."""
    return sorted({int(name[10:16]) for name in drawn(folder)})


@pytest.fixture(scope="module")
def sampled(world):
    """A function of a command: the folder of that run with --sample_every 10."""
    return once(world, "sampled", "--sample_every 10")


@BOTH
@pytest.mark.parametrize("flags", ["", "--ema 0.9 --dropout 0.3 --precision bf16 --workers 1"])
def test_a_run_ends_as_one_without_samples(world, tmp_path, sampled, command, flags):
    command = f"{command} {flags}".strip()
    forked(f"{command} -o {tmp_path}", world)
    plain, other = snapshot_in(tmp_path), snapshot_in(sampled(command))
    assert other["run"]["extensions"].pop("Samples")["last"][0] == 20
    assert difference(plain, other) == ""
    assert best_model(tmp_path).read_bytes() == best_model(sampled(command)).read_bytes()
    assert difference(log_of(tmp_path), log_of(sampled(command))) == ""
    assert moments(sampled(command)) == [10, 20, UPDATES]


@BOTH
def test_a_killed_or_longer_run_draws_the_same_samples_at_the_same_moments(
        world, tmp_path, sampled, command):
    whole = drawn(sampled(command))
    flags = f"{command} --sample_every 10 --snapshot_every 3"
    killed = tmp_path / "killed"
    deaths = [in_update(13), at("replace", max(name for name in whole if "_000020" in name)),
              in_update(22)]
    assert check_killed(world, flags, killed, deaths) == 3
    assert drawn(killed) == whole
    forked(f"{flags} -e 2 -o {tmp_path}/longer", world)
    forked(f"{flags} -o {tmp_path}/longer --resume auto", world)
    assert moments(tmp_path / "longer") == [10, 16, 20, UPDATES]
    assert whole.items() <= drawn(tmp_path / "longer").items()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(killed / "tensorboard")).Reload()
    shown = {name: [event.step for event in events.Images(name)]
             for name in events.Tags()["images"]}
    heard = {name: [event.step for event in events.Audio(name)]
             for name in events.Tags()["audio"]}
    steps = [10, 20, UPDATES]
    assert (shown, heard) == (
        ({"samples/plot_sounds": steps}, {"samples/sound_sounds": steps}) if command == WAVENET
        else ({"samples/pictures": steps}, {}))


def test_a_run_without_samples_can_be_resumed_with_them(world, tmp_path):
    forked(f"{PIXELCNN} -e 1 -o {tmp_path}", world)
    forked(f"{PIXELCNN} -e 2 --sample_every 7 -o {tmp_path} --resume auto", world)
    assert moments(tmp_path) == [9, 16]


def test_a_new_run_sets_only_its_predecessors_samples_aside(world, tmp_path):
    command = f"{PIXELCNN} --iterations 2 --sample_every 1 -o {tmp_path}"
    forked(command, world)
    (tmp_path / "samples/sample_0.wav").touch()
    forked(command.replace("--iterations 2", "--iterations 1"), world)
    assert set(drawn(tmp_path)) == {"iteration_000001.png", "sample_0.wav"}
    assert set(drawn(tmp_path / "earlier_1")) == {"iteration_000001.png", "iteration_000002.png"}


def test_a_folder_that_cannot_be_written_is_reported_before_the_run(world, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/samples").write_text("a file")
    done = forked(f"{WAVENET} --sample_every 2 -o {tmp_path}/run", world, code=2)
    assert "run/samples: can't be written to" in done.err
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["samples"]


def test_drawing_leaves_the_network_unchanged_and_is_not_timed(tmp_path):
    trainer, seen = trainer_of(StopCondition(iterations=4), ema=0.5), []

    def draw(model, seed, path):
        seen.append((model is trainer.eval_model, model.training, seed, path.name))
        time.sleep(0.2)
        return {}

    trainer.extend(Samples(tmp_path, Board(tmp_path), draw, Every(2)), (1, "iteration"))
    modes = set()
    trainer.extend(lambda trainer: modes.add((trainer.model.training, trainer.eval_model.training)),
                   (1, "iteration"))
    trainer.run()
    assert seen == [(True, False, 3, "iteration_000002"), (True, False, 3, "iteration_000004")]
    assert modes == {(True, True)}
    assert trainer.elapsed_time - trainer.interval.seconds > 0.39  # both drawings


def test_slow_drawing_by_the_clock_leaves_updates_in_between(tmp_path):
    trainer, seen = trainer_of(StopCondition(iterations=9)), []

    def draw(model, seed, path):
        seen.append(path.name)
        time.sleep(1.1)
        return {}

    trainer.extend(Samples(tmp_path, Board(tmp_path), draw, Every(1, in_seconds=True)),
                   (1, "iteration"))
    trainer.extend(lambda _: time.sleep(0.3), (1, "iteration"))
    trainer.run()
    assert 1 <= len(seen) <= 3


def test_sounds_of_the_first_labels_cover_the_receptive_field(tmp_path):
    torch.manual_seed(0)
    names = ["a/b", *"cdefghijk"]
    model = WaveNet(WaveNetConfig(16, 4, 4, 1, 8, len(names))).eval()
    files = draw_sound_previews(model, 0, tmp_path / "iteration_000007", names, rate=100)
    assert list(files)[:4] == ["sound_a_b", "plot_a_b", "sound_c", "plot_c"]
    assert len(files) == 16 and all(path.exists() for path in files.values())
    assert files["sound_a_b"] == tmp_path / "iteration_000007_a_b.wav"
    with wave.open(str(files["sound_c"])) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (100, model.config.receptive_field)
    unlabelled = WaveNet(WaveNetConfig(16, 4, 4, 1, 3)).eval()
    files = draw_sound_previews(unlabelled, 0, tmp_path / "iteration_000008", [], rate=100)
    assert set(files) == {"sound", "plot"}
    with wave.open(str(tmp_path / "iteration_000008.wav")) as sound:
        assert sound.getnframes() == 200


@pytest.mark.parametrize("labels, rows", [(0, 8), (3, 3), (12, 10)])
def test_a_row_of_pictures_for_each_of_the_first_labels(tmp_path, monkeypatch, labels, rows):
    model = PixelCNN(PixelCNNConfig(4, 1, 4, 4, 2, labels)).eval()
    asked, sample = [], image_rendering.sample_images
    monkeypatch.setattr(
        image_rendering, "sample_images", lambda model, streams, label, *size, **options: (
            asked.append(label), sample(model, streams, label, *size, **options))[1])
    path = tmp_path / "iteration_000007"
    file = draw_image_previews(model, 0, path, range(labels), 6, 5)["pictures"]
    assert file == tmp_path / "iteration_000007.png"
    with Image.open(file) as picture:
        assert picture.width / picture.height == pytest.approx(8 * 5 / (rows * 6), rel=0.1)
    label, = asked
    assert label is None if not labels else label.tolist() == [n // 8 for n in range(8 * rows)]


def test_samples_depend_on_the_seed_alone(tmp_path):
    model = PixelCNN(PixelCNNConfig(4, 1, 4, 4, 2)).eval()
    files = [draw_image_previews(model, seed, tmp_path / str(n), [], 6, 6)["pictures"]
             for n, seed in enumerate((1, 1, 2))]
    a, b, c = (file.read_bytes() for file in files)
    assert a == b != c
