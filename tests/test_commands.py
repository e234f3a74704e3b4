"""The scripts as a user types them, each in a process of its own, in a folder that is not ours."""

import gzip
import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[1]
RATE = 16000


def run(command, folder, code=0):
    """`python SCRIPT FLAGS` in `folder`; its output, the exit code being as expected."""
    script, *flags = command.split()
    done = subprocess.run([sys.executable, ROOT / script, *flags], cwd=folder, text=True,
                          capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def write_sounds(folder, names, seconds=0.3):
    """A tone for each name, each of its own pitch."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        t = np.arange(int(seconds * RATE)) / RATE
        soundfile.write(folder / name, 0.4 * np.sin(2 * np.pi * (200 + 50 * i) * t), RATE)


def write_cifar(folder, count=6):
    """CIFAR-10 in its published form, with few and random images."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(pickle.dumps({
            b"data": generator.integers(0, 256, (count, 3072)).astype(np.uint8),
            b"labels": [i % 10 for i in range(count)]}, protocol=2))
    names = [b"plane", b"car", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship",
             b"truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))


def write_mnist(folder, count=40):
    """MNIST in its published form, with few and random digits."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, array in ((f"{part}-images-idx3-ubyte.gz", pixels),
                            (f"{part}-labels-idx1-ubyte.gz", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(
                size.to_bytes(4, "big") for size in array.shape)
            (folder / name).write_bytes(gzip.compress(header + array.tobytes()))


def write_study(folder, run):
    """A user's folder: data, and both networks trained on it by the user's own commands.

    run: what a command is run with in a folder, such as `run`.
    """
    write_sounds(folder / "vctk/wav/p225", [f"p225_{i:03}.wav" for i in range(1, 6)])
    write_cifar(folder / "data/cifar-10-batches-py")
    write_mnist(folder / "data/MNIST/raw")
    run("train_pixelcnn.py --levels 256 --dataset cifar -d 6 -n 2 --iterations 3", folder)
    run("preprocess.py --data vctk/wav/p225 --stacks_num 4", folder)
    run("train_wavenet.py -g0 --hidden_dim 4 --out_hidden_dim 4 --iterations 2", folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Such a folder, by commands in processes of their own."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, run)
    return folder


def test_the_users_commands_train_on_the_data_they_are_given(study):
    model = torch.load(study / "pixelcnn_3", weights_only=True)
    assert model["config"]["levels"] == 256 and model["config"]["channels"] == 3
    assert model["data"]["dataset"] == "cifar" and model["label_names"][3] == "cat"
    manifest = json.loads((study / "vctk_manifest.json").read_text())
    assert manifest["stacks_num"] == 4 and manifest["rate"] == 8000
    model = torch.load(study / "wavenet_2", weights_only=True)
    assert model["config"]["stacks_num"] == 4 and model["label_names"] == ["p225"]
    for name in ("log", "loss.png", "speed.png", "tensorboard", "config.json"):
        assert (study / name).exists()


def test_the_users_sampling_command_writes_sounds_from_the_model_alone(study):
    run("infer_wavenet.py -m wavenet_2 --output samples/ -c 2 --length 60", study)
    for i in range(2):
        samples, rate = soundfile.read(study / f"samples/sample_{i}.wav")
        assert rate == 8000 and samples.shape == (60,)
    assert not (study / "samples/sample_2.wav").exists()


def test_the_original_studys_flags_all_work(study, tmp_path):
    out = tmp_path / "all"
    run(f"train_pixelcnn.py -b 8 -e 1 -g -1 -o {out} -d 6 --out_hidden_dim 5 -n 2 --gradclip 1.0 "
        f"--weight_decay 1e-4 --learning_rate 1e-3 --levels 4 --dataset mnist --stats", study)
    run(f"train_pixelcnn.py --batchsize 8 --epoch 2 --gpu -1 --resume {out}/snapshot_iter_5 "
        f"--out {out} --hidden_dim 6 --out_hidden_dim 5 --blocks_num 2 --levels 4", study)
    run(f"infer_pixelcnn.py -g -1 -m {out} -d 6 --out_hidden_dim 5 -n 2 --levels 4 "
        f"-o {out}/samples.jpg -l 3 -c 2 --height 9 --width 8", study)
    assert (out / "samples.jpg").stat().st_size > 500
    run(f"preprocess.py --data vctk --output {out} --workers 2 --rate 4000 --stacks_num 1 "
        f"--layers_num 3 --target_length 100 --flush_every 2", study)
    run(f"train_wavenet.py -b 2 -e 1 -g -1 -o {out}/w -d {out} --hidden_dim 4 --out_hidden_dim 4 "
        f"-s 1 -l 3 --learning_rate 1e-3 --clip 1.0 --weight_decay 1e-4 --levels 256 --stats",
        study)
    run(f"infer_wavenet.py -g -1 -m {out}/w --hidden_dim 4 --out_hidden_dim 4 -s 1 -l 3 "
        f"--levels 256 -o {out}/sounds --label 0 -c 1 --rate 4000 --length 30", study)
    assert soundfile.info(out / "sounds/sample_0.wav").samplerate == 4000
    log = json.loads((out / "log").read_text())
    assert "blocks/0/vertical/W/data/percentile/6" in log[0]
    assert [entry["epoch"] for entry in log] == [1, 2] and log[1]["resumed_at"] == 5


def test_a_machine_without_cuda_says_so_once_and_runs(study, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    done = run(f"train_wavenet.py -g0 --hidden_dim 4 --iterations 1 -o {tmp_path}", study)
    assert done.stderr.count("CUDA") == 1 and "running on the CPU" in done.stderr


@pytest.mark.parametrize("script", ["train_pixelcnn.py", "infer_pixelcnn.py", "preprocess.py",
                                    "train_wavenet.py", "infer_wavenet.py"])
def test_help_names_every_flag_and_does_not_wait_for_torch(script, tmp_path):
    text = run(f"{script} --help", tmp_path).stdout
    assert "--config" in text and "default" in text
    code = f"import sys; sys.argv = ['{script}', '--help']; import runpy\n" \
           f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n" \
           f"finally: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_config_json_starts_the_same_run_again(study, tmp_path):
    flags = "--dataset mnist --levels 4 -d 6 -n 2 --condition none --iterations 4 --seed 5"
    run(f"train_pixelcnn.py {flags} -o {tmp_path}/a", study)
    run(f"train_pixelcnn.py --config {tmp_path}/a/config.json -o {tmp_path}/b", study)
    a, b = (torch.load(tmp_path / name / "pixelcnn_4", weights_only=True) for name in "ab")
    assert a["weights"].keys() == b["weights"].keys() and a["config"]["labels"] == 0
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    (tmp_path / "typo.json").write_text('{"hiden_dim": 3}')
    assert "'hiden_dim' is no flag" in run(
        f"train_pixelcnn.py --config {tmp_path}/typo.json", study, code=2).stderr
    (tmp_path / "wrong.json").write_text('{"hidden_dim": "wide"}')
    assert "'wide' is not a whole number" in run(
        f"train_pixelcnn.py --config {tmp_path}/wrong.json", study, code=2).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_goes_on_to_the_very_same_weights(study, tmp_path, number):
    flags = "--dataset mnist -d 6 -n 2 -b 4 -e 12"
    run(f"train_pixelcnn.py {flags} -o {tmp_path}/whole", study)
    out = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, ROOT / "train_pixelcnn.py", *flags.split(), "-o", out],
        cwd=study, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (out / "log").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, stderr
    assert "--resume auto" in stderr and "Traceback" not in stderr
    snapshots = sorted(out.glob("snapshot_iter_*"))
    assert snapshots and not (out / "snapshot_iter_120").exists()
    run(f"train_pixelcnn.py {flags} -o {out} --resume auto", study)
    whole, cut = (torch.load(tmp_path / name / "snapshot_iter_120", weights_only=True)
                  for name in ("whole", "cut"))
    assert all(torch.equal(whole["weights"][name], cut["weights"][name])
               for name in whole["weights"])
    assert [entry["main/nll"] for entry in whole["run"]["log"]] == pytest.approx(
        [entry["main/nll"] for entry in cut["run"]["log"]], rel=1e-12)
