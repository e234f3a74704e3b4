"""Wrong input to the scripts: one line that names it, exit code 2, and no file touched."""

import os

import pytest
from forks import forked, refused
from PIL import Image
from test_commands import write_study

BAD_INPUT = {
    "train_pixelcnn.py --dataset minst": "minst",
    "train_pixelcnn.py --dataset empty": "empty",
    "train_pixelcnn.py --dataset cifar --data empty": "data_batch_1",
    "train_pixelcnn.py --levels 300": "--levels 300",
    "train_pixelcnn.py --levels 1": "--levels 1",
    "train_pixelcnn.py --levels 4 --binarize sampled": "--binarize",
    "train_pixelcnn.py --dataset cifar -d 2": "--hidden_dim 2",
    "train_pixelcnn.py --conf none.json": "--conf",
    "train_pixelcnn.py --levels": "--levels",
    "train_pixelcnn.py --resume empty": "--resume empty",
    "train_pixelcnn.py -b 0": "'0' is not a whole number",
    "train_pixelcnn.py --learning_rate nan": "'nan' is not a number",
    "train_pixelcnn.py -g -2": "-2",
    "train_pixelcnn.py --seed 9223372036854775808": "argument --seed: '9223372036854775808'",
    "train_pixelcnn.py -d 6 -n 1 -o a_file/below": "--out a_file/below",
    "train_pixelcnn.py -d 6 -n 1 --resume none": "none: no such model file",
    "train_pixelcnn.py -d 6 -n 1 --resume wavenet_2": "is a wavenet model",
    "train_pixelcnn.py -d 6 -n 2 --resume pixelcnn_3": "without its run",
    "train_pixelcnn.py -d 7 -n 2 --levels 256 --dataset cifar --resume snapshot_pixelcnn":
        "hidden_dim 6, this run 7",
    "train_pixelcnn.py -d 6 -n 2 --levels 256 --dataset cifar --resume snapshot_pixelcnn --seed 4":
        "--seed 4 contradicts",
    "train_pixelcnn.py -d 6 -n 2147483647 -o new": "--blocks_num 2147483647: the most is 4096",
    "train_wavenet.py -d nowhere": "nowhere",
    "train_wavenet.py -s 2147483647 -o new": "--stacks_num 2147483647: with --layers_num",
    "train_wavenet.py -d empty": "preprocess.py",
    "train_wavenet.py --levels 128": "--levels 128",
    "train_wavenet.py --config none.json": "none.json",
    "train_wavenet.py -o new --init_from pixelcnn_3": "train_pixelcnn.py",
    "infer_wavenet.py -m none": "none: no such model file",
    "infer_wavenet.py -m pixelcnn_3": "is a pixelcnn model",
    "infer_wavenet.py -m wavenet_2 --label 7": "--label 7",
    "infer_wavenet.py -m wavenet_2 -s 5": "--stacks_num 5 contradicts",
    "infer_wavenet.py -m wavenet_2 --prime a_file": "a_file",
    "infer_wavenet.py -m wavenet_2 --prime_seconds 1": "--prime_seconds goes with --prime",
    "infer_wavenet.py -m wavenet_2 -o a_file/below": "--output a_file/below",
    "infer_pixelcnn.py -m pixelcnn_3 --label zebra": "--label zebra",
    "infer_pixelcnn.py -m pixelcnn_3 -o a_file/below.png": "--output a_file",
    "infer_pixelcnn.py -m pixelcnn_3 -o picture.txt": "picture.txt",
    "infer_pixelcnn.py -m pixelcnn_3 --complete a_file": "a_file: not a picture",
    "infer_pixelcnn.py -m pixelcnn_3 --complete pipes/a.png": "a.png: is a named pipe",
    "infer_pixelcnn.py -m pixelcnn_3 --complete empty": "empty: is a folder",
    "infer_pixelcnn.py -m pixelcnn_3 --complete damaged.tiff": "damaged.tiff: damaged (",
    "train_pixelcnn.py --dataset pipes": "pipes/a.png: is a named pipe",
    "preprocess.py --data nowhere": "nowhere",
    "preprocess.py --data empty": "empty",
    "preprocess.py --data vctk --output a_file/below": "--output a_file/below",
    "preprocess.py --data vctk --levels 1": "--levels 1",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with data, a run of each network in it, and things that are neither."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, forked)
    (folder / "empty").mkdir()
    (folder / "a_file").write_text("no sound, no picture, no folder")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes/a.png")
    Image.new("L", (64, 64), 9).save(folder / "damaged.tiff", compression="tiff_deflate")
    content = (folder / "damaged.tiff").read_bytes()
    (folder / "damaged.tiff").write_bytes(content[:12] + bytes(8) + content[20:])
    # The WaveNet run in the same folder has set nothing of the PixelCNN's models aside.
    os.link(folder / "earlier_1/snapshot_iter_3", folder / "snapshot_pixelcnn")
    return folder


@pytest.mark.parametrize("command", BAD_INPUT)
def test_bad_input_is_one_line_that_names_it(study, command):
    assert BAD_INPUT[command] in refused(command, study)


def test_a_refused_command_leaves_the_files_as_they_were(study):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*") if path.is_file()}
    refused("train_wavenet.py --levels 128", study)
    refused("train_pixelcnn.py -d 7 -n 2 --levels 256 --dataset cifar --resume snapshot_pixelcnn",
            study)
    refused("preprocess.py --data empty", study)
    assert before == {path: path.stat().st_mtime_ns for path in study.rglob("*")
                      if path.is_file()}


@pytest.mark.parametrize("command", [
    "train_pixelcnn.py --data {path} -o out", "train_pixelcnn.py --data data -o {path}",
    "train_pixelcnn.py --dataset {path} -o out", "train_pixelcnn.py --data data -r {path} -o out",
    "train_pixelcnn.py --data data --init_from {path} -o out", "train_wavenet.py -d {path} -o out",
    "preprocess.py --data {path} --output out", "preprocess.py --data sounds --output {path}",
    "infer_pixelcnn.py -m {path}", "infer_wavenet.py -m {path}"])
@pytest.mark.parametrize("path", ["a" * 5000, "loop/a"], ids=["long", "loop"])
def test_a_path_that_can_not_be_one(world, tmp_path, command, path):
    for name in ("data", "sounds", "corpus"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "loop").symlink_to("loop")
    assert path[:20] in refused(command.format(path=path), tmp_path)
    assert not (tmp_path / "out").is_file()
