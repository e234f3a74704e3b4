"""The scripts on CUDA, and several processes; skipped without a GPU.

Scripts run in processes of their own, since a fork can't use a GPU that its parent has used.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import PIXELCNN, UPDATES, WAVENET, difference, snapshot_in
from test_distributed import free_port

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA on this machine")

ROOT = Path(__file__).resolve().parents[1]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])
SLOT = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}


def typed(command, folder, code=0, environment=(), launcher=()):
    """Run a script as a user types it: (stdout, stderr)."""
    script, *flags = command.split()
    run = subprocess.run([sys.executable, *launcher, ROOT / script, *flags], cwd=folder, text=True,
                         capture_output=True, env={**os.environ, **dict(environment)})
    assert run.returncode == code, (command, run.stdout, run.stderr)
    return run.stdout, run.stderr


@BOTH
def test_a_run_goes_on_from_the_cpu_and_back(world, tmp_path, command):
    """With an average of the weights, statistics, samples and workers."""
    flags = "--ema 0.9 --stats --sample_every 12 --workers 1 --snapshots_kept 9"
    for epoch, gpu in ((1, 0), (2, -1), (3, 0)):
        out, err = typed(f"{command} {flags} -e {epoch} -g{gpu} -o {tmp_path}/out --resume auto",
                         world)
        assert f"parameters on {'cuda:0' if gpu == 0 else 'cpu'}, " in out
        assert "Traceback" not in err
    typed(f"{command} {flags} -g-1 -o {tmp_path}/cpu", world)
    logs = [json.loads((tmp_path / name / "log").read_text()) for name in ("out", "cpu")]
    for name in ("main/nll", "validation/main/nll"):
        changed, whole = ([entry[name] for entry in log if name in entry] for log in logs)
        assert changed == pytest.approx(whole, rel=1e-3)
    assert snapshot_in(tmp_path / "out")["weights"].keys()
    assert [*(tmp_path / "out/samples").iterdir()]


@BOTH
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_is_resumed_ends_with_the_same_weights(world, tmp_path, command, precision):
    command = f"{command} --precision {precision} --dropout 0.1 -g0"
    typed(f"{command} -o {tmp_path}/whole", world)
    typed(f"{command} --iterations 11 -o {tmp_path}/cut", world)
    typed(f"{command} --resume auto -o {tmp_path}/cut", world)
    whole, cut = (snapshot_in(tmp_path / name, UPDATES) for name in ("whole", "cut"))
    assert difference(whole["weights"], cut["weights"]) == ""
    assert difference(whole["run"]["optimizer"], cut["run"]["optimizer"]) == ""


def test_the_scripts_draw_there(models, tmp_path):
    for command in ("infer_pixelcnn.py -m {}/colour --label all -c 2 -o images.png",
                    "infer_wavenet.py -m {}/sound --label all -c 2 --length 300 -o sounds",
                    "infer_wavenet.py -m {}/sound -c 1 --precision bf16 --length 300 -o rounded"):
        _, err = typed(command.format(models) + " -g0 --seed 1", tmp_path)
        assert "Traceback" not in err and "no CUDA" not in err
    assert (tmp_path / "images.png").exists()
    assert len([*(tmp_path / "sounds").glob("*.wav")]) == 4


def test_the_benchmark_measures_it(tmp_path):
    out, _ = typed("benchmarks/cuda.py --seconds 0.1 --only 1,600 sound", tmp_path)
    assert out.startswith(torch.cuda.get_device_name(0)) and out.count("MiB |") >= 6


def test_a_device_that_is_not_there(world, tmp_path):
    beyond = torch.cuda.device_count()
    _, err = typed(f"{PIXELCNN} -g{beyond} -o {tmp_path}", world, code=2)
    assert err.startswith(f"error: --gpu {beyond}: there is no such device")
    assert err.count("\n") == 1
    _, err = typed(f"{PIXELCNN} -g1 -o {tmp_path}", world, code=2, environment=SLOT)
    assert "this machine has 0 to 0" in err and err.count("\n") == 1
    out, err = typed(f"{PIXELCNN} -g0 --iterations 1 -o {tmp_path}", world,
                     environment={"CUDA_VISIBLE_DEVICES": ""})
    assert "--gpu 0: no CUDA on this machine, running on the CPU" in err and " on cpu, " in out


def test_the_lack_of_its_memory_is_one_line(world, tmp_path):
    """A process that may use a thousandth of it, and a network of some 500 MB."""
    small = ("import torch; torch.cuda.set_per_process_memory_fraction(1e-3); import runpy, sys; "
             "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0]); "
             "runpy.run_path(sys.argv[0], run_name='__main__')")
    _, err = typed("train_pixelcnn.py --data data -d 1024 -n 8 -g0 --iterations 1 "
                   f"-o {tmp_path}/out", world, code=1, launcher=("-c", small))
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: out of memory, for ") and "Traceback" not in err


AS_ONE_OF_SEVERAL = """
import sys
import torch
from models.pixelcnn import PixelCNN, PixelCNNConfig
from training import distributed
from training.device import select_device

distributed.world_size = lambda: 2  # the one that there is does what one of several does
with distributed.connected():
    device = select_device(int(sys.argv[1]))
    network = distributed.parallel(PixelCNN(PixelCNNConfig(2, 1, 6, 6, 2)).to(device), device)
    network(torch.zeros(2, 1, 4, 4, dtype=torch.long, device=device)).sum().backward()
    assert {weight.grad.device for weight in network.parameters()} == {device}
    backends = str(torch.distributed.get_backend_config())
    distributed.barrier()
    print(type(network).__name__, backends, distributed.all_reduce_sum(1, 2.5),
          distributed.broadcast_from_main(lambda: {"a": torch.ones(2)}))
"""


def test_nccl_and_gloo_stand_side_by_side():
    """On one GPU, too, where there is no second process for it."""
    alone = {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": str(free_port()), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", AS_ONE_OF_SEVERAL, "0"], text=True,
                         capture_output=True, env={**os.environ, **alone})
    assert run.returncode == 0, run.stderr
    assert run.stdout == ("DistributedDataParallel cpu:gloo,cuda:nccl [1.0, 2.5] "
                          "{'a': tensor([1., 1.])}\n")


@BOTH
def test_a_process_a_gpu_by_torchrun(world, tmp_path, command):
    """NCCL brings the gradients together, gloo the numbers; the losses are those of one process."""
    count = torch.cuda.device_count()
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}")
    out, _ = typed(f"{command} -g0 -o {tmp_path}/all", world, launcher=launcher)
    assert "parameters on cuda:0, " in out
    typed(f"{command} -g0 -o {tmp_path}/one", world)
    losses = [[entry["main/nll"] for entry in json.loads((tmp_path / name / "log").read_text())
               if "main/nll" in entry] for name in ("all", "one")]
    np.testing.assert_allclose(*losses, rtol=1e-3)
