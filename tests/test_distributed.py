"""Several processes learn what one learns; here in forks, in test_torchrun.py by torchrun."""

import json
import os
import signal
import socket

import numpy as np
import pytest
import torch
from forks import PIXELCNN, WAVENET, Fork, forked, snapshot_in

from common.errors import UserError
from datasets.batches import evaluation_batches, training_batches
from training import distributed, likelihood
from training.trainer import Trainer

BOTH = pytest.mark.parametrize("command", [PIXELCNN, WAVENET], ids=["pixelcnn", "wavenet"])
LOST = "error: another process of this run has ended or can't be reached"


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def processes(command, folder, count=2, prepare=None, machines=1):
    """A run on `count` processes, as torchrun would start them: its `Fork`s.

    prepare: called in each with its rank. machines: as many or 1.
    """
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(free_port())}
    return [Fork(command, folder, prepare and (lambda rank=rank: prepare(rank)),
                 {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank if machines == 1 else 0)})
            for rank in range(count)]


def on_processes(command, folder, count=2, prepare=None):
    """The same to its end: what the first and the others said."""
    ended = [fork.wait() for fork in processes(command, folder, count, prepare)]
    assert not any(each.code for each in ended), ended
    return ended


def log_of(folder):
    return json.loads((folder / "log").read_text())


def check_same_losses(a, b):
    names = {name for entry in [*a, *b] for name in entry if name.endswith("/nll")}
    assert len(a) == len(b) and "validation/main/nll" in names
    for name in names:
        seen = [[entry.get(name) for entry in log] for log in (a, b)]
        assert seen[0] == pytest.approx(seen[1], abs=1e-5), name


# ------------------------------------------------------------------------------ shares

@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("items", [0, 1, 2, 6, 7, 16])
def test_shards_have_every_index_once_and_equal_sizes(monkeypatch, count, items):
    monkeypatch.setenv("WORLD_SIZE", str(count))
    indices, shares = np.arange(items) * 3, []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(distributed.shard(indices))
    assert np.concatenate(shares).tolist() == indices.tolist()
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 9

    def __getitem__(self, indices):
        return list(map(int, indices))


def test_sharded_batches_are_the_whole_batches_in_the_same_order(monkeypatch):
    for batches in (lambda **_: evaluation_batches(Numbers(), 4, **_),
                    lambda **_: training_batches(Numbers(), 4, seed=1, epoch=2, **_)):
        whole, shares = list(batches()), []
        for rank in range(2):
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setenv("RANK", str(rank))
            shares.append(list(batches(share=distributed.shard)))
        assert [a + b for a, b in zip(*shares, strict=True)] == whole
        assert [len(share[-1]) for share in shares] == [1, 0]


def test_one_process_reduces_nothing():
    assert distributed.all_reduce_sum(2, 3.5) == [2, 3.5]
    assert distributed.broadcast_from_main(lambda: "made") == "made"
    assert distributed.is_main_process() and distributed.is_local_main_process()
    model = torch.nn.Linear(1, 1)
    assert distributed.data_parallel(model, torch.device("cpu")) is model


def test_rank_seeds_differ_between_processes_and_are_repeatable(monkeypatch):
    seeds = set()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert distributed.rank_seed(5, 7) == distributed.rank_seed(5, 7)
        seeds |= {distributed.rank_seed(5, n) for n in range(50)}
    assert len(seeds) == 100


# ------------------------------------------------------------------------------ the same run

@BOTH
@pytest.mark.parametrize("flags", ["", "-b 5", "-b 1 -e 1", "--ema 0.9 --workers 1 --stats"],
                         ids=["plain", "empty", "one", "ema"])
def test_two_processes_learn_what_one_learns_and_one_writes(world, tmp_path, command, flags):
    # Both have 31 or 15 items, so that -b 5 leaves one for the last update, and none for a process.
    if flags == "-b 5" and command == WAVENET:
        flags = "-b 7"
    command = f"{command} {flags} --snapshot_every 3"
    forked(f"{command} -o {tmp_path}/one", world)
    first, second = on_processes(f"{command} -o {tmp_path}/two", world)
    check_same_losses(log_of(tmp_path / "one"), log_of(tmp_path / "two"))
    epochs = log_of(tmp_path / "two")[-1]["epoch"]
    assert second.out == second.err == "" and first.err == ""
    lines = first.out.splitlines()
    assert "2 processes of 1" in lines[0] and lines[-1].startswith("next: ")
    assert len([line for line in lines if line.startswith("epoch ")]) == epochs
    assert [path.name for path in tmp_path.glob("two/.*")] == []


@BOTH
def test_three_processes_learn_what_one_learns(world, tmp_path, command):
    forked(f"{command} -o {tmp_path}/one", world)
    on_processes(f"{command} -o {tmp_path}/three", world, 3)
    check_same_losses(log_of(tmp_path / "one"), log_of(tmp_path / "three"))


@BOTH
def test_a_run_is_resumed_on_another_number_of_processes(world, tmp_path, command):
    command = f"{command} --ema 0.9 --schedule cosine"
    forked(f"{command} -o {tmp_path}/whole", world)
    for name, first, second in (("fewer", on_processes, forked), ("more", forked, on_processes)):
        def stop(rank=0):
            at_update(11, lambda: signal.raise_signal(signal.SIGTERM))

        if first is forked:
            forked(f"{command} -o {tmp_path}/{name}", world, stop, code=128 + signal.SIGTERM)
        else:
            for fork in processes(f"{command} -o {tmp_path}/{name}", world, prepare=stop):
                assert fork.wait().code == 128 + signal.SIGTERM
        second(f"{command} -o {tmp_path}/{name} --resume auto", world)
        assert log_of(tmp_path / name)[1]["resumed_at"] == 11
        check_same_losses(log_of(tmp_path / "whole"), log_of(tmp_path / name))


# ------------------------------------------------------------------------------ how it ends

def at_update(number, do):
    """Call `do` in the middle of that update."""
    update, norm = Trainer.update, torch.nn.utils.clip_grad_norm_

    def counted(trainer, batch):
        if trainer.iteration + 1 == number:
            def once(*args):
                torch.nn.utils.clip_grad_norm_ = norm
                do()
                return norm(*args)

            torch.nn.utils.clip_grad_norm_ = once
        update(trainer, batch)

    Trainer.update = counted


@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_killed_ends_the_run_with_one_line(world, tmp_path, lost):
    def prepare(rank):
        if rank == lost:
            at_update(11, lambda: os.kill(os.getpid(), signal.SIGKILL))

    forks = processes(f"{PIXELCNN} -o {tmp_path}", world, prepare=prepare, machines=2)
    ended = [fork.wait(20) for fork in forks]
    assert ended[lost].code == -signal.SIGKILL and ended[1 - lost].code == 1
    lines = ended[1 - lost].err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(LOST) and "--resume auto" in lines[0]
    # What was there is gone on from.
    on_processes(f"{PIXELCNN} -o {tmp_path} --resume auto", world)
    forked(f"{PIXELCNN} -o {tmp_path}/whole", world)
    check_same_losses(log_of(tmp_path / "whole"), log_of(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whom", [(0, 1), (1,)], ids=["both", "second"])
def test_a_signal_ends_all_after_the_same_update_with_a_snapshot(world, tmp_path, number, whom):
    def prepare(rank):
        if rank in whom:
            at_update(11, lambda: signal.raise_signal(number))

    ended = [fork.wait() for fork in processes(f"{PIXELCNN} -o {tmp_path}", world,
                                               prepare=prepare)]
    assert all(ended[rank].code == 128 + number for rank in whom), ended
    assert all(each.code in (128 + number, 128 + signal.SIGTERM) for each in ended)
    assert ended[0].err.count("stopped at iteration 11; go on with --resume auto") == 1
    assert "stopped at" not in ended[1].err
    assert snapshot_in(tmp_path, 11)["run"]["iteration"] == 11


@pytest.mark.parametrize("machines", [1, 2])
def test_wrong_flags_are_reported_once_per_machine(world, tmp_path, machines):
    forks = processes(f"{PIXELCNN} -o {tmp_path} --levels 999", world, machines=machines)
    ended = [forks[0].wait()]
    if machines == 1:
        forks[1].send(signal.SIGTERM)  # as torchrun does
    ended.append(forks[1].wait())
    assert [each.code for each in ended] == [2, 2 if machines == 2 else -signal.SIGTERM]
    said = [each.err.splitlines() for each in ended]
    assert len(said[0]) == 1 and said[0][0].startswith("error: --levels 999")
    assert said[1] == (said[0] if machines == 2 else [])


def test_an_error_of_the_main_process_alone_is_reported(world, tmp_path):
    forks = processes(f"{PIXELCNN} -o {tmp_path} --resume {tmp_path}", world)
    first, second = [fork.wait() for fork in forks]
    assert first.code == 2 and len(first.err.splitlines()) == 1
    assert "holds no snapshot_iter_N" in first.err
    assert second.code == 1


def test_an_error_of_another_process_alone_is_reported(world, tmp_path):
    def prepare(rank):
        def unreadable():
            raise UserError("shard 3: can't be read")

        if rank == 1:
            at_update(5, unreadable)

    first, second = [fork.wait() for fork in processes(f"{PIXELCNN} -o {tmp_path}", world,
                                                       prepare=prepare)]
    assert second.code == 2 and first.code == 1
    assert "shard 3: can't be read" in first.err + second.err


def test_a_loss_that_is_not_finite_ends_all_at_once(world, tmp_path):
    def prepare(rank):
        if rank == 1:
            nll = likelihood.nll
            likelihood.nll = lambda *args: nll(*args) * (float("nan") if len(args) == 3 else 1)

    forks = processes(f"{PIXELCNN} -o {tmp_path}", world, prepare=prepare)
    ended = [fork.wait() for fork in forks]
    assert [each.code for each in ended] == [3, 3]
    assert len(ended[0].err.splitlines()) == 1 and "loss is not finite" in ended[0].err
