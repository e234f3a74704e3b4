"""Frames of texts: alignment becomes phonemes and lengths, and can be read back."""

import os
import time

import numpy as np
import pytest
import soundfile

from datasets.audio.features import TEXT_WIDTH, Features, compute_features, make_features
from datasets.text import frames
from datasets.text.alignment import RATE, AlignedPhoneme
from datasets.text.frames import (
    PHONEME_COLUMNS,
    TEXT_COLUMNS,
    aligned_rows,
    phoneme_rows,
    pitch_of,
    read_phonemes,
)
from datasets.text.phonemes import PAUSES, PHONEMES, SILENCE, Phoneme, read_sentences
from datasets.text.transcripts import Transcripts
from models.speech import PHONEME_VALUES

COLUMNS = list(PHONEME_COLUMNS)


def columns(rows, name):
    return rows[:, COLUMNS.index(name)].tolist()


def symbols(rows):
    return [PHONEMES[number] for number in columns(rows, "phoneme")]


def align_evenly(sentences, count, silences=True):
    """Every phoneme lasts `count` frames of the aligner, silence between sentences too."""
    aligned, place, number = [], 0, 0
    for sentence in sentences:
        if silences:
            aligned.append(AlignedPhoneme(Phoneme(SILENCE), None, place, count))
            place += count
        for word in sentence:
            for phoneme in word.phonemes:
                aligned.append(AlignedPhoneme(phoneme, number, place, count))
                place += count
            number += 1
    return aligned


def test_the_widths_agree():
    assert len(TEXT_COLUMNS) == TEXT_WIDTH
    assert tuple(PHONEME_COLUMNS.values()) == PHONEME_VALUES


def test_a_sentence_to_speak():
    sentence, = read_sentences("Yes, go?")
    rows = phoneme_rows(sentence)
    assert symbols(rows) == ["SIL", "Y", "EH", "S", "SIL", "G", "OW", "SIL"]
    assert columns(rows, "first") == [0, 1, 0, 0, 0, 1, 0, 0]
    assert columns(rows, "last") == [0, 0, 0, 1, 0, 0, 1, 0]
    assert [PAUSES[one] for one in columns(rows, "pause")] == [".", "", "", ",", ",", "", "?", "?"]
    assert {PAUSES[one] for one in columns(rows, "ending")} == {"?"}
    assert (rows < np.array(list(PHONEME_COLUMNS.values()))).all()


def test_an_aligned_recording_has_the_rows_of_its_text():
    # So the network speaks what it was trained on.
    sentence, = read_sentences("Yes, go?")
    yes, go = sentence
    silence = Phoneme(SILENCE)
    aligned = [AlignedPhoneme(silence, None, 0, 10),
               *(AlignedPhoneme(one, 0, 10 + 5 * i, 5) for i, one in enumerate(yes.phonemes)),
               AlignedPhoneme(silence, None, 25, 3), AlignedPhoneme(silence, None, 28, 2),
               *(AlignedPhoneme(one, 1, 30 + 10 * i, 10) for i, one in enumerate(go.phonemes)),
               AlignedPhoneme(silence, None, 50, 30)]
    spoken = aligned_rows(aligned, [sentence], 0.01, 80)
    assert (spoken.rows == phoneme_rows(sentence)).all()
    assert spoken.frames.tolist() == [10, 5, 5, 5, 5, 10, 10, 30]


def test_recordings_without_silence_begin_and_end_with_none():
    sentences = [*read_sentences("Yes. Go?")]
    spoken = aligned_rows(align_evenly(sentences, 4, silences=False), sentences, 0.01, 20)
    assert symbols(spoken.rows) == ["SIL", "Y", "EH", "S", "G", "OW", "SIL"]
    assert spoken.frames.tolist() == [0, 4, 4, 4, 4, 4, 0]
    assert [PAUSES[one] for one in columns(spoken.rows, "ending")] == [*"....???"]


@pytest.mark.parametrize("hop", [0.005, 0.0125, 0.02])
def test_no_phoneme_is_lost_at_any_hop(hop):
    sentences = [*read_sentences("Please enter your number, followed by the pound key. Go.")]
    aligned = align_evenly(sentences, 3)  # the shortest that the aligner gives
    total = round((aligned[-1].first + 3) * 0.01 / hop)
    spoken = aligned_rows(aligned, sentences, hop, total)
    assert spoken.frames.sum() == total and (spoken.frames[:-1] > 0).all()


def test_frames_are_read_back():
    sentence, = read_sentences("Hello hello")  # equal phonemes side by side stay apart
    rows = phoneme_rows(sentence)
    lengths = np.arange(1, len(rows) + 1)
    numbers = np.repeat(np.arange(len(rows)), lengths)
    stored = np.zeros((lengths.sum(), TEXT_WIDTH + 4), np.float32)
    stored[:, 0], stored[:, 1:1 + len(COLUMNS)] = numbers, rows[numbers]
    spoken = read_phonemes(stored)
    assert (spoken.rows == rows).all() and (spoken.frames == lengths).all()


def test_pitch_of_a_tone():
    time = np.arange(RATE) / RATE
    tone = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 9)).astype(np.float32) / 4
    tone[RATE // 2:] = 0
    voiced, pitch = pitch_of(tone, 0.0125, 80).T
    assert voiced[4:36].all() and not voiced[50:].any()
    assert np.abs(np.exp(pitch[4:36]) - 150).max() < 3 and (pitch[voiced == 0] == 0).all()


def test_text_frames_hold_words_pitch_and_spectrum(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    (tmp_path / "a.txt").write_text("Hello.")
    features = make_features("text", [], RATE, 0.0125, 20)
    assert isinstance(features, Features) and features.width == TEXT_WIDTH + 20
    monkeypatch.setattr(frames, "align",
                        lambda samples, sentences, source: align_evenly(sentences, 10))
    encoder = frames.TextFrames(tmp_path / "a.wav", features, Transcripts(tmp_path))
    rows = [encoder.add(block) for block in np.array_split(samples, 3)]
    assert all(row.shape == (0, features.width) for row in rows)
    found = encoder.end()
    assert found.shape == (80, features.width) and found.dtype == np.float32
    mel = compute_features(samples, features.mel)
    assert np.allclose(found[:, TEXT_WIDTH:], mel, atol=1e-5)
    assert symbols(read_phonemes(found).rows) == ["SIL", "HH", "EH", "L", "OW", "SIL"]
    assert read_phonemes(found).frames.tolist() == [8, 8, 8, 8, 8, 40]


def test_librosa_compiles_in_one_process_at_a_time(tmp_path, monkeypatch):
    """Else files of its cache mix, and crash whoever loads them."""
    monkeypatch.setattr(frames, "gettempdir", lambda: str(tmp_path))

    def compile_slowly(samples, hop_length):
        with (tmp_path / "log").open("a") as log:
            log.write("begin\n")
            log.flush()
            time.sleep(0.2)
            log.write("end\n")

    monkeypatch.setattr(frames, "_pyin", compile_slowly)
    frames._compile_pyin.cache_clear()
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            frames._compile_pyin()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    frames._compile_pyin.cache_clear()
    assert (tmp_path / "log").read_text().split() == ["begin", "end"] * 4
