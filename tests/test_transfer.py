"""--init_from: another run's weights with other labels; and validation of each label."""

import json

import numpy as np
import pytest
import torch
from forks import forked, refused
from test_commands import run, write_sounds

from common.errors import UserError
from datasets.batches import Batch
from models import model_file
from models.model_file import LABEL_EMBEDDING_SUFFIX
from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from training import likelihood
from training.transfer import init_from

CPU = torch.device("cpu")
NETWORKS = {
    "wavenet": lambda labels, width=4: WaveNet(WaveNetConfig(16, width, 4, 1, 3, labels)),
    "pixelcnn": lambda labels, width=4: PixelCNN(PixelCNNConfig(4, 1, width, 4, 3, labels))}

DATA = {"wavenet": {"levels": 16, "rate": 8000},
        "pixelcnn": {"levels": 4, "channels": 1, "height": 4, "width": 4}}

ENCODINGS = {"pixelcnn": None, "wavenet": "mulaw"}  # of a file that names none


def saved(path, kind, names):
    torch.manual_seed(0)
    model = NETWORKS[kind](len(names))
    model_file.save(path, model_file.model_content(kind, model, names, DATA[kind]))
    return model.state_dict()


def embeddings(state):
    return {name: weight for name, weight in state.items() if name.endswith(LABEL_EMBEDDING_SUFFIX)}


@pytest.mark.parametrize("kind", NETWORKS)
def test_labels_are_matched_by_name_and_new_ones_start_as_asked(kind, tmp_path):
    old = saved(tmp_path / "model", kind, ["anna", "bert", "carl"])
    torch.manual_seed(1)
    model = NETWORKS[kind](4)
    said = init_from(tmp_path / "model", kind, model, ["blues", "carl", "jazz", "anna"],
                     ["blues=bert"], ENCODINGS[kind])
    new = model.state_dict()
    assert embeddings(new)
    for name, weight in new.items():
        if name in embeddings(new):
            anna, bert, carl = old[name]
            wanted = torch.stack((bert, carl, old[name].mean(0), anna))
            torch.testing.assert_close(weight, wanted, rtol=0, atol=0)
        else:
            assert torch.equal(weight, old[name])
    assert "2 labels as there; blues from bert; new: jazz" in said


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_without_labels_gains_labels_that_change_nothing_yet(kind, tmp_path):
    old = saved(tmp_path / "model", kind, [])
    model = NETWORKS[kind](2)
    init_from(tmp_path / "model", kind, model, ["a", "b"], [], ENCODINGS[kind])
    assert not any(weight.any() for weight in embeddings(model.state_dict()).values())
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in old.items())


def pixelcnn(vector, labels=0):
    return PixelCNN(PixelCNNConfig(4, 1, 4, 4, 3, labels, vector))


def test_vectors_keep_their_weights_or_start_at_zero(tmp_path):
    for vector in (5, 0):
        torch.manual_seed(0)
        old, model = pixelcnn(vector), pixelcnn(5)
        model.vector_scale.fill_(3)
        model_file.save(tmp_path / "model",
                      model_file.model_content("pixelcnn", old, [], DATA["pixelcnn"]))
        init_from(tmp_path / "model", "pixelcnn", model, [], [], None)
        for name, weight in model.state_dict().items():
            expected = old.state_dict().get(name, torch.tensor(3.0) if name == "vector_scale"
                                            else torch.zeros_like(weight))
            assert torch.equal(weight, expected), name


@pytest.mark.parametrize("old, new, message", [
    (pixelcnn(5), pixelcnn(3), "vectors of 5 numbers, this network on 3"),
    (pixelcnn(5), pixelcnn(0), "vectors of 5 numbers, this network on none"),
    (pixelcnn(5), pixelcnn(0, labels=2), "vectors of 5 numbers, this network on none"),
    (pixelcnn(0, labels=2), pixelcnn(5), "has 2 labels, the data none")])
def test_vectors_of_another_kind_are_refused(tmp_path, old, new, message):
    names = ["a", "b"]
    model_file.save(tmp_path / "model", model_file.model_content(
        "pixelcnn", old, names[:old.config.labels], DATA["pixelcnn"]))
    with pytest.raises(UserError, match=message):
        init_from(tmp_path / "model", "pixelcnn", new, names[:new.config.labels], [], None)


def test_a_mismatch_is_refused_by_name(tmp_path):
    saved(tmp_path / "model", "wavenet", ["anna", "bert"])
    for model, names, started, message in (
            (NETWORKS["wavenet"](2, 6), ["anna", "bert"], [], "hidden_dim 4, this network 6"),
            (NETWORKS["wavenet"](0), [], [], "has 2 labels, the data none"),
            (NETWORKS["wavenet"](1), ["x"], ["x=zoe"], "'zoe' is no label of .*anna, bert"),
            (NETWORKS["wavenet"](1), ["x"], ["y=anna"], "'y' is no label of the data.* x")):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        with pytest.raises(UserError, match=message):
            init_from(tmp_path / "model", "wavenet", model, names, started, "mulaw")
        assert all(torch.equal(weight, before[name])
                   for name, weight in model.state_dict().items())


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_likelihood_of_each_label_is_that_of_its_items_alone(kind):
    torch.manual_seed(0)
    model = NETWORKS[kind](3).double()
    shape, levels = ((1, 5, 6), 4) if kind == "pixelcnn" else ((20,), 16)
    codes = torch.randint(levels, (7, *shape))
    targets = (codes if kind == "pixelcnn" else codes[:, model.config.receptive_field - 1:]).clone()
    targets.view(7, -1)[3, :4] = -100
    label = torch.tensor([0, 2, 2, 0, 2, 0, 0])
    batches = [Batch(codes[part], targets[part], label[part]) for part in (slice(4), slice(4, 7))]
    mean, each = likelihood.evaluate_labels(model, batches, CPU, 3)
    assert each[1] is None and len(each) == 3
    for number in (0, 2):
        of = label == number
        alone = likelihood.evaluate(model, [Batch(codes[of], targets[of], label[of])], CPU)
        assert each[number] == pytest.approx(alone, rel=1e-12)
    assert mean == pytest.approx(likelihood.evaluate(model, batches, CPU), rel=1e-12)
    counts = np.array([4 * targets[0].numel() - 4, 3 * targets[0].numel()])
    assert mean == pytest.approx(np.average([each[0], each[2]], weights=counts), rel=1e-12)


def test_speakers_then_one_of_them_swapped_for_music(tmp_path):
    """The flow of WaveNet-Audio, small: what it does to each label is in the log and drawn."""
    for folder, voices in (("speakers", ("p1", "p2", "p3")), ("mixed", ("p1", "p2", "blues"))):
        for voice in voices:
            write_sounds(tmp_path / folder / voice, [f"{n}.wav" for n in range(4)])
        forked(f"preprocess.py --data {folder} --output {folder}_corpus --stacks_num 1 "
               "--layers_num 4 --target_length 800 --validation [3].wav", tmp_path)
    small = "--hidden_dim 4 --out_hidden_dim 4 -e 1"
    forked(f"train_wavenet.py -d speakers_corpus -o first {small}", tmp_path)
    done = run(f"train_wavenet.py -d mixed_corpus -o second --init_from first --start_label "
               f"blues=p3 {small}", tmp_path)
    assert "2 labels as there; blues from p3" in done.stderr
    log = json.loads((tmp_path / "second/log").read_text())
    assert [(entry["epoch"], "main/nll" in entry) for entry in log] == [(0, False), (1, True)]
    assert all({f"validation/label/{name}/bits/dim" for name in ("p1", "p2", "blues")}
               <= entry.keys() for entry in log)
    before = f"before the first update  validation/main {log[0]['validation/main/bits/dim']:.4f}"
    assert before in done.stdout
    assert (tmp_path / "second/labels.png").stat().st_size > 1000
    again = forked("train_wavenet.py --config second/config.json -o third", tmp_path)
    assert "blues from p3" in again.err
    last = [json.loads((tmp_path / f"{name}/log").read_text())[-1] for name in ("second", "third")]
    assert last[0]["validation/main/nll"] == last[1]["validation/main/nll"]
    assert "hidden_dim 4, this network 6" in refused(
        "train_wavenet.py -d mixed_corpus -o no --init_from first --hidden_dim 6 "
        "--out_hidden_dim 4", tmp_path)
    assert "--start_label goes with --init_from" in refused(
        "train_wavenet.py -d mixed_corpus --start_label blues=p3", tmp_path)
    for start in ("second", "second/snapshot_iter_1"):
        assert "is of the run in --out second" in refused(
            f"train_wavenet.py -d mixed_corpus -o second --init_from {start} {small}", tmp_path)
    assert (tmp_path / "second/log").exists() and not (tmp_path / "second/earlier_1").exists()
    assert "error: --init_from: none: no such model file" in refused(
        f"train_wavenet.py -d mixed_corpus -o no --init_from none {small}", tmp_path)
