"""benchmarks/ablation.py reproduces each defect of the original study as described."""

import argparse
import re
import subprocess
import sys
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from test_commands import write_mnist, write_sounds
from test_pixelcnn import network
from test_pixelcnn_causality import assert_sees, expected, influence

from benchmarks import ablation
from benchmarks.ablation import (
    CORRECT,
    DEFECTS,
    mask_a_twice,
    remove_position,
    shift_vertical_stack,
)
from benchmarks.likelihood import make_parser
from datasets.batches import IGNORED, training_batches
from datasets.quantization import mu_law_decode, mu_law_encode
from models.convolutions import groups
from models.pixelcnn import PixelCNN, PixelCNNConfig

TINY = ["--hidden_dim", "6", "--out_hidden_dim", "6", "--blocks_num", "3", "--stacks_num", "1",
        "--layers_num", "3", "--target_length", "500", "--threads", "1"]


@pytest.fixture
def data(tmp_path):
    """A folder with digits and with recordings of two speakers, several windows each."""
    write_mnist(tmp_path / "data/MNIST/raw")
    write_sounds(tmp_path / "data/sounds", [f"0_{speaker}_{take}.wav" for speaker in ("ann", "bob")
                                            for take in (0, 4, 5, 6)])
    return tmp_path / "data"


def make_task(network, data, name=None):
    """The task of the defect `name`, or of the correct network."""
    variant, = (defect for defect in (CORRECT, *DEFECTS[network])
                if defect.name == (name or CORRECT.name))
    args = make_parser("").parse_args([network, "--data", str(data), *TINY])
    return variant.build_task(argparse.Namespace(**vars(args), labels=variant.labels, seed=0))


# ------------------------------------------------------------------------------ PixelCNN

def own_feature(model, index):
    """Which groups of a block's change of h depend on which groups of the same pixel's h.

    (groups, groups) of booleans.
    """
    channels, p = model.config.channels, model.config.hidden_dim
    v, h = (torch.randn(1, *size, p, dtype=torch.double) for size in ((2, 3), (1, 4)))
    h[:, :, 0] = 0
    h.requires_grad_()
    added = (model.blocks[index](v, h)[1] - h)[0, 0, -1]
    depends = torch.stack([torch.autograd.grad(value, h, retain_graph=True)[0][0, 0] != 0
                           for value in added])  # (out, columns, in)
    assert depends[:, -2].all(), "the left neighbour's feature is seen in full"
    one_hot = torch.eye(channels)[groups(p, channels)]
    return one_hot.T @ depends[:, -1].float() @ one_hot > 0


@pytest.mark.parametrize("channels", [1, 3])
def test_mask_a_twice_hides_the_pixels_own_feature_in_the_second_block(channels):
    sizes = dict(channels=channels, hidden_dim=7, out_hidden_dim=7)
    model = network(**sizes, blocks_num=3)
    groups_up_to_its_own = torch.ones(channels, channels, dtype=torch.bool).tril()
    assert torch.equal(own_feature(model, 1), groups_up_to_its_own)
    mask_a_twice(model)
    assert torch.equal(own_feature(model, 1), groups_up_to_its_own.tril(-1))
    assert torch.equal(own_feature(model, 2), groups_up_to_its_own)
    # Through the residual connections a pixel sees all earlier sub-pixels, and nothing else.
    seen = influence(5, 6, mask_a_twice, **sizes, blocks_num=3)
    assert_sees(seen, expected(5, 6, channels, 3), 5, 6)


@pytest.mark.parametrize("channels, blocks_num", [(1, 2), (1, 4), (3, 2)])
def test_a_shift_in_each_block_limits_the_row_above_to_three_pixels_ahead(
        channels, blocks_num):
    reach = 3 + blocks_num - 1
    rows, width = 3, 2 * reach + 3
    seen = influence(rows + 1, width, shift_vertical_stack, channels=channels, hidden_dim=6,
                     out_hidden_dim=6, blocks_num=blocks_num)
    order = torch.arange(len(seen)).view(channels, (rows + 1) * width).t().flatten()
    assert not seen[order][:, order].triu().any(), "a sub-pixel sees only earlier ones"
    shape = channels, rows + 1, width
    last_row = seen.view(*shape, *shape)[:, -1, reach + 1] != 0  # (viewer, seen, row, column)
    for up in range(1, rows + 1):
        # To the left nothing changes, because the left neighbours still see it.
        right = 3 + min(up, blocks_num) - 1
        wanted = [False] + [True] * (reach + 1 + right) + [False] * (reach - right + 1)
        assert (last_row[:, :, -1 - up] == torch.tensor(wanted)).all(), up


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", [mask_a_twice, shift_vertical_stack])
def test_a_defective_network_has_the_same_weights_but_other_outputs(change, channels):
    torch.manual_seed(0)
    config = PixelCNNConfig(4, channels, 6, 6, 2, labels=3)
    plain, defective = PixelCNN(config), change(PixelCNN(config))
    plain.load_state_dict(defective.state_dict())
    codes, label = torch.randint(4, (2, channels, 5, 5)), torch.tensor([0, 2])
    with torch.no_grad():
        assert (plain(codes, label) - defective(codes, label)).abs().max() > 1e-4


@pytest.mark.parametrize("name, change", [
    ("mask A twice", mask_a_twice),
    ("vertical stack shifted in each block", shift_vertical_stack),
    ("no position", remove_position)])
def test_a_defect_changes_the_correct_network_of_the_seed(name, change, data):
    correct, defective = make_task("pixelcnn", data), make_task("pixelcnn", data, name)
    batch = correct.test_set[[0, 1]]
    with torch.no_grad():
        before, after = (each.model(batch.codes, batch.label) for each in (correct, defective))
        assert not torch.equal(before, after)
        assert torch.equal(change(correct.model)(batch.codes, batch.label), after)


def test_without_position_the_network_is_the_papers():
    torch.manual_seed(0)
    model = remove_position(PixelCNN(PixelCNNConfig(4, 1, 6, 6, 4, position=True)))
    paper = PixelCNN(PixelCNNConfig(4, 1, 6, 6, 4))
    paper.load_state_dict(model.state_dict())
    codes = torch.randint(4, (2, 1, 5, 5))
    assert torch.equal(model(codes), paper(codes))


# ------------------------------------------------------------------------------ both networks

@pytest.mark.parametrize("network", ["pixelcnn", "wavenet"])
def test_an_ignored_label_changes_nothing(network, data):
    def effect(model, codes):
        with torch.no_grad():
            one, other = (model(codes, torch.full((len(codes),), label)) for label in (0, 1))
        return (one - other).abs().max()

    correct, ignoring = make_task(network, data), make_task(network, data, "label ignored")
    codes = correct.test_set[[0, 1]].codes
    assert torch.equal(ignoring.test_set[[0, 1]].codes, codes)
    assert effect(ignoring.model, codes) == 0 < effect(correct.model, codes)
    for name in ("training_set", "test_set"):
        assert getattr(ignoring, name)[[0]].label is None
        assert getattr(correct, name)[[0]].label is not None


# ------------------------------------------------------------------------------ WaveNet

def test_training_uses_one_window_in_four_and_testing_all(data):
    whole, quarter = make_task("wavenet", data), make_task("wavenet", data, "one window in four")
    trained_on = [*training_batches(quarter.training_set, 2, seed=0, epoch=0)]
    targets = {tuple(row[row != IGNORED].tolist()) for batch in trained_on for row in batch.targets}
    wanted = whole.training_set[range(0, len(whole.training_set), 4)].targets
    assert targets == {tuple(row[row != IGNORED].tolist()) for row in wanted}
    assert len(targets) == len(wanted) >= 4
    assert sum(len(batch.targets) for batch in trained_on) == len(wanted)
    every = range(len(whole.test_set))
    assert torch.equal(quarter.test_set[every].targets, whole.test_set[every].targets)


def test_truncation_takes_the_code_below(data):
    codes = np.arange(256)
    decoded = mu_law_decode(codes, 256)
    assert ablation.truncating_encode(decoded, 256)[0].tolist() == codes.tolist()
    samples = np.random.default_rng(0).uniform(-1, 1, 10000) ** 3
    found, clipped = ablation.truncating_encode([*samples, 2, -2], 256)
    assert clipped == 2 and found[-2:].tolist() == [255, 0]
    companded = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    assert (found[:-2] == np.floor((companded + 1) / 2 * 255)).all()
    first = range(3)
    nearest = make_task("wavenet", data).training_set[first].targets
    truncated = make_task("wavenet", data, "quantisation by truncation").training_set[first].targets
    assert (nearest - truncated).unique().tolist() == [0, 1]


def test_truncation_doubles_the_error():
    recordings = [np.random.default_rng(i).normal(0, 0.1, 5000).astype(np.float32)
                  for i in range(2)]
    nearest, truncated = (ablation.signal_to_noise(recordings, encode)
                          for encode in (mu_law_encode, ablation.truncating_encode))
    # An error uniform in [-1/2, 1/2] has the mean square 1/12; in [0, 1], 1/3.
    assert 35 < nearest < 40 and nearest - truncated == pytest.approx(6.02, abs=0.1)


def test_noise_of_a_tenth_of_the_amplitude_is_20_db_below_the_signal(monkeypatch):
    monkeypatch.setattr(ablation, "mu_law_decode", lambda codes, _: codes * 1.1)
    assert ablation.signal_to_noise([np.ones(5), np.zeros(3), -np.ones(2)],
                                    lambda samples, _: (samples, 0)) == pytest.approx(20)


# ------------------------------------------------------------------------------ the command

def rows(printed):
    """The printed table: {defect: its other cells}."""
    table = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("|")]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in table[2:]}


def test_the_pixelcnns_defects_are_compared_with_the_correct_network(data):
    """With two seeds: means and deviations match the results of the runs."""
    ended = subprocess.run(
        [sys.executable, ablation.__file__, "pixelcnn", "--data", data, "--minutes", "0.003",
         "--seeds", "2", *TINY], capture_output=True, text=True, check=True)
    table = rows(ended.stdout)
    assert [*table] == ["none", "mask A twice", "vertical stack shifted in each block",
                        "label ignored", "no position"]
    bits = {name: [float(each) for each in re.findall(rf"defect: {name}: ([\d.]+) bits/dim",
                                                      ended.stderr)] for name in table}
    assert re.findall(r"seed (\d+), defect: none", ended.stderr) == ["0", "1"]
    for name, (bits_cell, difference, rate) in table.items():
        assert len(bits[name]) == 2 and all(1 < each < 2.5 for each in bits[name])
        increases = [a - b for a, b in zip(bits[name], bits["none"], strict=True)]
        cells = [(bits_cell, bits[name])] + [(difference, increases)] * (name != "none")
        for cell, values in cells:
            assert [float(part) for part in cell.split(" ± ")] == pytest.approx(
                [mean(values), stdev(values)], abs=2e-4)
        assert float(rate.split(" ± ")[0].replace(",", "")) > 10
    assert table["none"][1] == ""


def test_only_selected_defects_run_and_truncation_noise_is_printed(data, call):
    code, out, _ = call(ablation, "wavenet", "--data", data, "--minutes", 0.003, *TINY,
                        "--only", "window", "truncation")
    assert code == 0
    table = rows(out)
    assert [*table] == ["none", "one window in four", "quantisation by truncation"]
    correct = float(table["none"][0])
    for bits_cell, difference, _ in [*table.values()][1:]:
        assert float(difference) == pytest.approx(float(bits_cell) - correct, abs=2e-4)
    nearest, truncated = map(float, re.search(r"([\d.]+) dB by the nearest codes, "
                                              r"([\d.]+) dB by truncation$", out.strip()).groups())
    assert nearest > truncated + 3


@pytest.mark.parametrize("command, message", [
    ("pixelcnn --only nonsense", '--only nonsense: no such defect; give a part of "mask A twice"'),
    ("wavenet --only mask", "--only mask: no such defect"),
    ("pixelcnn --blocks_num 1", "--blocks_num 1: "),
    ("pixelcnn --levels 300", "--levels 300: "),
    ("wavenet --layers_num 25", "--layers_num 25: "),
    ("wavenet --data data/sounds/0_ann_0.wav", "give recordings of both"),
    ("wavenet --data music", "its name is not DIGIT_SPEAKER_TAKE")])
def test_wrong_input_gives_one_line(data, call, command, message):
    write_sounds(data.parent / "music", ["tone.wav"])
    code, out, err = call(ablation, *command.split(), *([] if "--data" in command
                                                        else ["--data", data]))
    assert code == 2 and not out and err.count("\n") == 1 and err.startswith("error: ")
    assert message in err
