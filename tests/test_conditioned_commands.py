"""Training on and drawing for vectors in place of classes, from the command line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import forked, snapshot_in
from PIL import Image
from test_commands import write_mnist
from test_page import Page

import infer_pixelcnn
import train_pixelcnn
from models.model_file import load

NETWORK = "--levels 2 --height 4 --width 4 -d 6 --out_hidden_dim 6 -n 2"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with `pictures`, mostly white or mostly black ones, beside each a vector that tells
    which, and with the run `run` on them."""
    folder, generator = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for number in range(80):
        kind = number % 2
        pixels = 255 * (generator.random((4, 4)) < (0.1, 0.9)[kind]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"pictures/{number}.png")
        vector = (2 * kind - 1) * np.array([1, -1, 1]) + 0.1 * generator.normal(size=3)
        np.save(folder / f"pictures/{number}.npy", vector)
    np.save(folder / "both.npy", [[-1, 1, -1], [1, -1, 1]])
    np.save(folder / "white.npy", [1.0, -1, 1])
    forked(f"train_pixelcnn.py --dataset pictures {NETWORK} -b 8 -e 12 --learning_rate 1e-2 "
           f"--validation 0.2 --condition npy --sample_every 60 -o run", folder)
    return folder


@pytest.fixture
def draw(study, call, monkeypatch):
    """Run infer_pixelcnn.py with the study's model: (exit code, stdout, stderr)."""
    def run(*args):
        monkeypatch.chdir(study)
        return call(infer_pixelcnn, "-m", "run", *args)

    return run


def cells(path, rows, columns):
    """The images of a grid that `save_picture` wrote, by their mean grey: (rows, columns)."""
    grid = np.asarray(Image.open(path).convert("L")).astype(float)
    height, width = grid.shape[0] // rows, grid.shape[1] // columns
    return np.array([[np.median(grid[y * height + height // 4:(y + 1) * height, x * width:
                                     (x + 1) * width]) for x in range(columns)]
                     for y in range(rows)])


def test_vectors_improve_the_likelihood(study):
    forked(f"train_pixelcnn.py --dataset pictures {NETWORK} -b 8 -e 12 --learning_rate 1e-2 "
           f"--validation 0.2 --condition none -o without", study)
    given, without = (json.loads((study / run / "log").read_text())[-1]["validation/main/nll"]
                      for run in ("run", "without"))
    assert given < without - 0.02
    assert snapshot_in(study / "run", 96)["config"]["vector"] == 3
    # Nor does it matter how large the vectors are.
    shutil.copytree(study / "pictures", study / "large")
    for path in (study / "large").glob("*.npy"):
        np.save(path, 1024 * np.load(path).astype(np.float32))
    forked(f"train_pixelcnn.py --dataset large {NETWORK} -b 8 -e 12 --learning_rate 1e-2 "
           f"--validation 0.2 --condition npy -o run_of_large", study)
    large = json.loads((study / "run_of_large/log").read_text())[-1]["validation/main/nll"]
    assert large == pytest.approx(given, abs=1e-3)
    assert {path.name for path in (study / "run/samples").iterdir()} == {
        "iteration_000060.png", "iteration_000096.png"}


def test_images_for_vectors(study, draw):
    code, out, err = draw("--condition_from", "both.npy", "-c", 9, "-o", "both.png")
    assert code == 0 and "both.png: 18 images of both 0, both 1 in" in out, err
    grey = cells("both.png", 2, 9)
    assert np.median(grey[0]) < 80 and np.median(grey[1]) > 180
    assert draw("--condition_from", "white.npy", "-c", 9, "-o", "white.png")[0] == 0
    white = cells("white.png", 9, 9)
    assert np.median(white) > 180
    assert np.array_equal(white[0], grey[1])  # a row holds what its vector alone would have


def test_page_has_a_row_for_each_vector(study, draw):
    Path(study, "vectors").mkdir()
    for name, sign in (("black", -1), ("white", 1)):
        np.save(study / f"vectors/{name}.npy", sign * np.array([1.0, -1, 1]))
    code, out, err = draw("--condition_from", "vectors", "-c", 3, "-o", "out/")
    assert code == 0 and "18 images of black, white" in out, err
    page = Page(Path("out/index.html"))
    assert [link.name for link in page.links] == ["black.png", "white.png"]
    assert [link.read_bytes() for link in page.links] == page.pictures[:2]
    assert "black\n" in page.text and "white\n" in page.text


def test_completions_use_the_vector_beside_the_picture_or_condition_from(study, draw):
    pictures = ["pictures/2.png", "pictures/3.png"]
    code, out, err = draw("--complete", *pictures, "-c", 7, "-o", "own.png")
    assert code == 0 and "14 images of 2, 3 in" in out, err
    assert draw("--complete", *pictures, "--condition_from", "both.npy", "-c", 7, "-o",
                "given.png")[0] == 0
    own, given = (np.asarray(Image.open(name).convert("L")) for name in ("own.png", "given.png"))
    assert given.shape[0] - 2 > 1.8 * (own.shape[0] - 2)  # two rows for each picture
    np.save("pictures/own.npy", np.load("pictures/2.npy"))
    assert draw("--complete", "pictures/2.png", "--condition_from", "pictures/own.npy", "-c", 7,
                "-o", "same.png")[0] == 0
    assert draw("--complete", "pictures/2.png", "-c", 7, "-o", "one.png")[0] == 0
    assert Path("same.png").read_bytes() == Path("one.png").read_bytes()


def test_resume_and_init_from_with_vectors(study, tmp_path):
    command = f"train_pixelcnn.py --dataset pictures {NETWORK} -b 8 --condition npy"
    forked(f"{command} --iterations 3 -o {tmp_path}/a", study)
    ended = forked(f"{command} --iterations 5 -o {tmp_path}/a --resume auto", study)
    assert "snapshot_iter_3" in ended.err and (tmp_path / "a/snapshot_iter_5").exists()
    ended = forked(f"{command} --iterations 2 --init_from run --validation 0 --sample_every 2 "
                   f"-o {tmp_path}/b", study)
    assert "weights of run" in ended.err
    assert (tmp_path / "b/samples/iteration_000002.png").exists()
    ended = forked(f"{command.replace('npy', 'none')} --iterations 5 -o {tmp_path}/a --resume auto",
                   study, code=2)
    assert re.search("^error: --resume: .* has vector 3, this run 0", ended.err, re.M)


def test_resume_from_a_snapshot_without_vector_fields(study, tmp_path):
    command = f"train_pixelcnn.py --dataset pictures {NETWORK} -b 8 --condition none -o {tmp_path}"
    forked(f"{command} --iterations 3", study)
    content = snapshot_in(tmp_path, 3)
    del content["config"]["vector"]
    torch.save(content, tmp_path / "snapshot_iter_3")
    forked(f"{command} --iterations 4 --resume auto", study)
    assert load(tmp_path / "snapshot_iter_3", "pixelcnn").model.config.vector == 0


def test_published_set_with_vectors(tmp_path, call):
    write_mnist(Path("data/MNIST/raw"))
    for part in ("train", "test"):
        np.save(f"data/mnist_{part}_vectors.npy", np.ones((40, 4)))
    code, out, err = call(train_pixelcnn, *NETWORK.split(), "-e", 1, "--condition", "npy", "--out",
                          "run")
    assert code == 0 and "test/main" in out, err
    assert Path("run/data.png").exists() and not Path("run/embeddings.png").exists()
    assert not [key for key in json.loads(Path("run/log").read_text())[-1] if "label" in key]
    for wrong, words in ((np.ones((39, 4)), "has 39 vectors for 40 images"),
                         (np.ones((40, 3)), "has 4 numbers a vector, data/mnist_train_vectors.npy"),
                         (np.ones(40), "its shape is (40,), not (N, width)"),
                         (np.full((40, 4), np.nan), "not all of its numbers are finite"),
                         (np.full((40, 4), None), "no .npy file of numbers")):
        np.save("data/mnist_train_vectors.npy", wrong)
        code, out, err = call(train_pixelcnn, "--condition", "npy", "--out", "other")
        assert code == 2 and out == "" and err.count("\n") == 1, err
        assert err.startswith("error: data/mnist_t") and words in err


def test_config_file_with_the_old_name_of_the_flag(study, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"labels": "none", "iterations": 1}))
    forked(f"train_pixelcnn.py --config {tmp_path}/config.json --dataset pictures {NETWORK} "
           f"-o {tmp_path}", study)
    assert json.loads((tmp_path / "config.json").read_text())["condition"] == "none"


def test_conditions_that_the_model_does_not_take(study, draw, models):
    np.save(study / "wide.npy", np.ones(4))
    np.save(study / "nan.npy", np.array([1, np.nan, 1]))
    (study / "nothing").mkdir()
    Image.new("L", (4, 4)).save(study / "alone.png")
    colour, grey, before = models / "colour", models / "grey", sorted(study.rglob("*"))
    for args, words in (
            ([], "--condition_from FILE.npy which ones to draw for, of 3 numbers"),
            (["-l", 0], "--label 0: run/pixelcnn_"),
            (["-l", "all", "--condition_from", "white.npy"], "give --condition_from"),
            (["--condition_from", "wide.npy"], "wide.npy: has 4 numbers a vector, run/pixelcnn_"),
            (["--condition_from", "nan.npy"], "nan.npy: not all of its numbers are finite"),
            (["--condition_from", "missing.npy"], "missing.npy: No such file"),
            (["--condition_from", "alone.png"], "alone.png: no .npy file of numbers"),
            (["--condition_from", "nothing"], "nothing: no .npy file below it"),
            (["--complete", "alone.png"], "alone.npy: No such file"),
            (["-m", colour, "--condition_from", "white.npy"], "conditioned on classes, not on"),
            (["-m", grey, "--condition_from", "white.npy"], "conditioned on nothing, not on")):
        code, out, err = draw(*args)
        assert code == 2 and out == "", (args, err)
        assert err.startswith("error: ") and err.count("\n") == 1 and words in err, (args, err)
    assert sorted(study.rglob("*")) == before
