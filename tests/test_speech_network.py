"""The network that turns phonemes into mel frames: shapes, padding, speed, training, resuming."""

import numpy as np
import pytest
import torch
from prompts import align_evenly, write_prompts

from datasets.audio.encoding import EncodingConfig
from datasets.audio.features import make_features
from datasets.audio.labels import Labelling
from datasets.corpus.builder import build_corpus
from datasets.corpus.reader import Corpus
from datasets.text import frames
from datasets.text.frames import phoneme_rows
from datasets.text.phonemes import read_sentences
from datasets.text.transcripts import Transcripts
from datasets.text.utterances import pitch_statistics, read_batch, shuffled_batches
from models.speech import SpeechConfig, SpeechNetwork, speech_shapes
from training import speech
from training.speech import SpeechTraining, losses

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for speaker in ("p1", "p2"):
        write_prompts(folder / "prompts" / speaker)
    root, before = folder / "prompts", frames.align
    frames.align = align_evenly
    try:
        config = EncodingConfig(Labelling(root, ("folder",), ()), 8000, 256,
                                features=make_features("text", [], 8000, 0.0125, 12),
                                transcripts=Transcripts(root))
        paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.wav"))}
        build_corpus(paths, config, folder / "corpus", data=str(root), validation="d.wav",
                     strict=True, workers=1, labels="folder", stacks_num=1, layers_num=3,
                     target_length=500, flush_every=100)
    finally:
        frames.align = before
    return Corpus(folder / "corpus")


def network(labels=0, **config):
    torch.manual_seed(0)
    return SpeechNetwork(SpeechConfig(bins=12, hidden_dim=8, labels=labels, **config)).eval()


def rows_of(text):
    sentence, = read_sentences(text)
    return torch.from_numpy(phoneme_rows(sentence))


@pytest.mark.parametrize("labels", [0, 3])
def test_shapes_are_known_without_building(labels):
    built = {name: tuple(weight.shape) for name, weight in network(labels).state_dict().items()}
    assert speech_shapes(SpeechConfig(12, 8, labels)) == built


def test_padding_changes_nothing():
    model = network()
    first, second = rows_of("Hello."), rows_of("Goodbye, my dear friends!")
    long = max(len(first), len(second))
    phonemes = torch.zeros(2, long, first.shape[1], dtype=torch.long)
    mask = torch.zeros(2, long, 1)
    lengths = torch.zeros(2, long, dtype=torch.long)
    pitch = torch.zeros(2, long, 2)
    for row, rows in enumerate((first, second)):
        phonemes[row, :len(rows)], mask[row, :len(rows)] = rows, 1
        lengths[row, :len(rows)] = torch.arange(len(rows)) % 3 + 1
        pitch[row, :len(rows)] = torch.randn(len(rows), 2)
    together = model.decode(model.encode(phonemes, mask), pitch, lengths)
    for row, rows in enumerate((first, second)):
        n, total = len(rows), int(lengths[row].sum())
        alone = model.encode(rows[None], torch.ones(1, n, 1))
        mel = model.decode(alone, pitch[row:row + 1, :n], lengths[row:row + 1, :n])
        assert mel.shape == (1, total, 12)
        torch.testing.assert_close(together[row, :total], mel[0], rtol=1e-4, atol=1e-5)


def test_a_phoneme_lasts_as_many_frames_as_it_is_told():
    model = network()
    torch.nn.init.zeros_(model.read_place.weight)
    for layer in model.decoder:  # so that a frame depends on its own phoneme only
        torch.nn.init.zeros_(layer.residual.weight)
        torch.nn.init.zeros_(layer.residual.bias)
    encoded, lengths = torch.randn(1, 4, 8), torch.tensor([[2, 0, 3, 1]])
    mel = model.decode(encoded, torch.zeros(1, 4, 2), lengths)[0]
    assert [len(group) for group in np.split(mel.detach().numpy(), [2, 5])] == [2, 3, 1]
    for begin, end in ((0, 2), (2, 5)):
        assert (mel[begin:end] == mel[begin]).all()
    assert not torch.allclose(mel[1], mel[2]) and not torch.allclose(mel[4], mel[5])


def test_speed_and_pitch():
    model = network()
    model.set_pitch(5.0, 0.25)
    with torch.no_grad():
        model.durations.second.bias.fill_(2.0)
    rows = rows_of("Goodbye, my dear friends!")
    plain = model.speak(rows)
    assert abs(len(model.speak(rows, speed=2)) - len(plain) / 2) <= 1
    assert abs(len(model.speak(rows, speed=0.5)) - len(plain) * 2) <= 2
    higher = model.speak(rows, pitch=1.5)
    assert len(higher) == len(plain) and not torch.allclose(higher, plain)
    assert torch.equal(model.speak(rows), plain)


def test_speakers_differ():
    model, rows = network(labels=2), rows_of("Hello.")
    first, second = (model.speak(rows, label) for label in (0, 1))
    assert first.shape != second.shape or not torch.allclose(first, second)


def test_batches_hold_each_recording_about_once(corpus):
    for epoch in range(3):
        batches = list(shuffled_batches(corpus.train, 4, 0, epoch))
        seen = np.concatenate(batches)
        assert len(set(seen)) == len(seen) and all(len(batch) == 4 for batch in batches)
    assert len(list(shuffled_batches(corpus.train, 50, 0, 0))[0]) == 6  # all there are


def test_a_batch_fits_its_corpus(corpus):
    batch = read_batch(corpus.train, np.array([0, 5]), pitch_statistics(corpus.train))
    assert batch.label.tolist() == [0, 1]
    assert batch.frames.sum(1).tolist() == [80, 80] and batch.mel.shape == (2, 80, 12)
    mel = corpus.train.with_mel_frames()
    assert (mel.read_frames(0) == batch.mel[0].numpy()).all()
    assert mel.features == corpus.features.mel


def training(corpus, updates=12, seed=3):
    return SpeechTraining(SpeechConfig(12, 8, 2), corpus.train, corpus.validation, updates, seed,
                          CPU)


def test_it_learns(corpus):
    task = training(corpus, 200)
    batch = read_batch(corpus.train, np.arange(6), task.statistics)
    before = losses(task.network.eval(), batch)
    for epoch in range(200):
        for indices in shuffled_batches(corpus.train, 6, 0, epoch):
            task._update(indices)
    after = losses(task.network.eval(), batch)
    assert after.total < 0.7 * before.total and after.durations < before.durations / 2


def test_a_killed_training_goes_on_where_it_stopped(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "SAVE_SECONDS", 0)
    whole = training(corpus).run(tmp_path / "whole").state_dict()
    for stop in (1, 5, 11):
        killed = training(corpus)
        update = killed._update

        def dying(indices, killed=killed, update=update, stop=stop):
            if killed.update == stop:
                raise KeyboardInterrupt
            return update(indices)

        monkeypatch.setattr(killed, "_update", dying)
        with pytest.raises(KeyboardInterrupt):
            killed.run(tmp_path / "killed")
        resumed = training(corpus)
        resumed._resume(tmp_path / "killed")
        assert resumed.update == stop
        found = training(corpus).run(tmp_path / "killed", is_resumed=True).state_dict()
        assert all(torch.equal(found[name], weight) for name, weight in whole.items())
        (tmp_path / "killed").unlink()


def test_another_training_is_not_continued(corpus, tmp_path):
    training(corpus).run(tmp_path / "speech")
    for other in (training(corpus, seed=4), training(corpus, updates=20)):
        other._resume(tmp_path / "speech")
        assert other.update == 0
