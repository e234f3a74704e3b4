"""Speech from text, as the commands do it: prepare, train, speak."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from forks import Fork, forked, refused, snapshot_in
from prompts import TEXTS, fake_alignment, write_prompts

from models import model_file

PREPARE = ("preprocess.py --features text --stacks_num 1 --layers_num 3 --target_length 500 "
           "--bins 12 --labels none --validation d.wav --workers 1")
TRAIN = ("train_wavenet.py -d corpus --hidden_dim 4 --out_hidden_dim 4 -b 2 -e 1 "
         "--speech_updates 5")
SPEAK = "infer_wavenet.py -m run"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A folder with prompts, a corpus of them, and a run of a voice."""
    folder = tmp_path_factory.mktemp("spoken")
    write_prompts(folder / "prompts")
    forked(f"{PREPARE} --data prompts --output corpus", folder, fake_alignment)
    forked(f"{TRAIN} -o run", folder)
    return folder


def load_voice(folder):
    return model_file.load(folder / "run", "wavenet")


def test_the_model_file_speaks_and_still_copies(spoken):
    file = load_voice(spoken)
    assert file.data["features"]["kind"] == "mel" and file.speech() is not None
    forked(f"{SPEAK} --features_from prompts/a.wav -o copy", spoken)
    sound, rate = soundfile.read(spoken / "copy/sample_0.wav")
    assert (len(sound), rate) == (8000, 8000)


def test_words_are_spoken(spoken):
    ended = forked(f"{SPEAK} --text 'Hello, you. Goodbye!' -o words", spoken)
    sound, _ = soundfile.read(spoken / "words/sample_0.wav", dtype="int16")
    assert len(sound) > 0 and len(sound) % 100 == 0 and "1 sound" in ended.out
    again = forked(f"{SPEAK} --text 'Hello, you. Goodbye!' -o again", spoken)
    assert (soundfile.read(spoken / "again/sample_0.wav", dtype="int16")[0] == sound).all()
    assert again.code == 0
    forked(f"{SPEAK} --text 'Hello, you. Goodbye!' -o seeds --seed 1", spoken)
    assert not (soundfile.read(spoken / "seeds/sample_0.wav", dtype="int16")[0] == sound).all()


def test_sentences_follow_each_other(spoken):
    for name, text in (("both", "Hello, you. Goodbye!"), ("first", "Hello, you.")):
        forked(f"{SPEAK} --text '{text}' -o {name}", spoken)
    both, first = (soundfile.read(spoken / name / "sample_0.wav", dtype="int16")[0]
                   for name in ("both", "first"))
    assert (both[:len(first)] == first).all() and len(both) > len(first)


def test_texts_come_from_files_and_pipes(spoken):
    (spoken / "text.txt").write_text("Hello, you.", encoding="utf-8")
    forked(f"{SPEAK} --text 'Hello, you.' -o typed", spoken)
    forked(f"{SPEAK} --text text.txt -o file", spoken)
    wav, _ = soundfile.read(spoken / "typed/sample_0.wav", dtype="int16")
    assert (soundfile.read(spoken / "file/sample_0.wav", dtype="int16")[0] == wav).all()

    def from_pipe():
        reader, writer = os.pipe()
        os.write(writer, b"Hello, you.")
        os.close(writer)
        os.dup2(reader, 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sink = os.open("piped.raw", os.O_WRONLY | os.O_CREAT)
        os.dup2(sink, 1)

    Fork(f"{SPEAK} --text - -o -", spoken, from_pipe).wait()
    assert (np.fromfile(spoken / "piped.raw", "<i2") == wav).all()


def test_speed_and_pitch_change_the_sound(spoken):
    lengths = {}
    for name, flags in (("plain", ""), ("fast", "--speed 2"), ("high", "--pitch 1.5")):
        forked(f"{SPEAK} --text 'Hello, you, and goodbye!' -o {name} {flags}", spoken)
        lengths[name] = soundfile.info(spoken / name / "sample_0.wav").frames
    assert lengths["fast"] <= lengths["plain"] == lengths["high"]


@pytest.mark.parametrize("flags, line", [
    ("--text ''", "--text : says nothing in English; give words or numbers"),
    ("--text '😀 привет'", "says nothing in English"),
    ("--text missing.txt", "--text missing.txt: no such file"),
    ("--text latin.txt", "--text latin.txt: is not UTF-8 (byte 0)"),
    ("--text big.txt", "--text big.txt: is longer than 1,000,000 characters; give it in parts"),
    ("--text prompts", "--text prompts: can't be read"),
    ("--text hello --prime prompts/a.wav", "--prime: can't go with --text"),
    ("--text hello --length 5s", "--length: can't go with --text"),
    ("--text hello --features_from prompts/a.wav", "--features_from: can't go with --text"),
    ("--speed 2 --features_from prompts/a.wav", "--speed goes with --text"),
    ("--text hello --speed 9", "'9' is not a number from 0.5 to 2"),
    ("", "was trained on features; give --text words, or --features_from"),
])
def test_requests_that_can_not_be(spoken, flags, line):
    (spoken / "latin.txt").write_bytes("é".encode("latin-1"))
    (spoken / "big.txt").write_text("word " * 200_001)
    assert line in refused(f"{SPEAK} {flags} -o refused", spoken)


def test_a_model_without_texts(spoken):
    forked("preprocess.py --data prompts --output plain --labels none --stacks_num 1 "
           "--layers_num 3 --target_length 500 --workers 1", spoken)
    forked("train_wavenet.py -d plain --hidden_dim 4 --out_hidden_dim 4 -e 1 -o plain_run", spoken)
    assert "plain_run" in (line := refused("infer_wavenet.py -m plain_run --text hello", spoken))
    assert "was trained without texts; prepare recordings with preprocess.py" in line


@pytest.mark.parametrize("flags, line", [
    ("--transcripts x.txt", "--transcripts goes with --features text"),
    ("--features text --max_seconds 1", "--max_seconds: changes recordings, and not the words"),
    ("--features text --validation_of each", "--validation_of each: cuts recordings"),
    ("--features text --hop_seconds 0.03", "too long for phonemes; give at most 0.02"),
    ("--features text --transcripts x.txt", "x.txt: can't be read"),
])
def test_preparations_that_can_not_be(spoken, flags, line):
    assert line in refused(f"preprocess.py --data prompts --output refused {flags}", spoken)


def test_recordings_without_words_are_left_out_and_told(spoken):
    write_prompts(spoken / "some", TEXTS | {"silent": "(noise)", "foreign": "Привет"})
    (spoken / "some/b.txt").unlink()
    (spoken / "some/c.txt").write_bytes(b"\xff")
    ended = forked(f"{PREPARE.replace('--validation d.wav', '')} --data some --output some_corpus",
                   spoken, fake_alignment)
    assert "2 recordings read" in ended.out and "4 left out" in ended.out
    for part in ("b.wav: has no transcript, b.txt is missing", "c.txt: is not UTF-8",
                 "silent.txt has no words", "its transcript has no words of English"):
        assert part in ended.err
    ended = forked(f"{PREPARE} --data some --output some_corpus --strict", spoken, fake_alignment,
                   code=2)
    assert re.match(r"error: .*b.wav: has no transcript", ended.err.splitlines()[-1])


def test_a_recording_that_does_not_fit_its_words_is_left_out(spoken):
    # By the real aligner: noise says nothing.
    ended = forked(f"{PREPARE} --data prompts --output noise", spoken, code=2)
    assert "does not say what its transcript says" in ended.err


def test_a_killed_run_ends_like_an_uninterrupted_one(spoken):
    def dying(moment):
        def prepare():
            from training.speech import SpeechTraining
            if moment == "in the text's training":
                update = SpeechTraining._update
                SpeechTraining._update = lambda self, indices: (
                    os.kill(os.getpid(), 9) if self.update == 3 else update(self, indices))
            else:
                from training.trainer import Trainer
                update = Trainer.update
                Trainer.update = lambda self, batch: (
                    os.kill(os.getpid(), 9) if self.iteration == 20 else update(self, batch))
        return prepare

    for moment in ("in the text's training", "in the WaveNet's"):
        Fork(f"{TRAIN} -o killed --resume auto --snapshot_every 7", spoken, dying(moment)).wait()
    ended = forked(f"{TRAIN} -o killed --resume auto --snapshot_every 7", spoken)
    assert "going on from killed/snapshot_iter_14" in ended.err
    files = [model_file.find_best_model(spoken / name, "wavenet") for name in ("run", "killed")]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()


def with_other_bins(speech):
    speech["config"].update(bins=13)
    speech["weights"].update({"mel.weight": torch.zeros(13, 96), "mel.bias": torch.zeros(13)})


@pytest.mark.parametrize("change, line", [
    (lambda speech: speech["weights"].pop("mel.bias"), "speech.weights: lack mel.bias"),
    (lambda speech: speech["weights"].update({"mel.bias": torch.zeros(3)}), "has the shape (3,)"),
    (with_other_bins, "makes mel frames of 13 numbers"),
    (lambda speech: speech["config"].update(labels=2), "weights don't fit"),
    (lambda speech: speech["config"].update(hidden_dim=2 ** 16), "65536 channels, and few weights"),
    (lambda speech: speech.update(more=1), "speech"),
])
def test_damaged_model_files(spoken, change, line):
    content = load_voice(spoken).content
    change(content["speech"])
    model_file.save(spoken / "damaged.pt", content)
    assert line in refused("infer_wavenet.py -m damaged.pt --text hello", spoken)


def test_a_run_without_texts_is_not_resumed_with_them(spoken):
    content = snapshot_in(spoken / "run", 24 if Path(spoken / "run/snapshot_iter_24").exists()
                          else int(next((spoken / "run").glob("snapshot_iter_*")).name[14:]))
    del content["speech"]
    model_file.save(spoken / "snapshot_iter_1", content)
    assert "of a run without texts" in refused(f"{TRAIN} -o other --resume snapshot_iter_1", spoken)
