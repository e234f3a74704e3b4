"""When recordings say their phonemes, by the real aligner."""

from pathlib import Path

import numpy as np
import pytest

from datasets.audio.recordings import read_recording
from datasets.text.alignment import FRAME, RATE, align
from datasets.text.phonemes import read_sentences

SAMPLES = Path(__file__).resolve().parents[1] / "assets" / "samples"
TEXTS = {"voice_1.wav": "The weather is nice today, and the birds are singing.",
         "voice_2.wav": "Would you like a cup of coffee, or some tea?"}

pytest.importorskip("pocketsphinx")


def align_sample(name):
    return align(read_recording(SAMPLES / name, RATE), [*read_sentences(TEXTS[name])], name)


def test_all_phonemes_are_found_in_order_and_within_the_recording():
    for name, text in TEXTS.items():
        found = align_sample(name)
        words = [word for sentence in read_sentences(text) for word in sentence]
        assert ([one.phoneme for one in found if one.word is not None]
                == [phoneme for word in words for phoneme in word.phonemes])
        firsts = [one.first for one in found]
        ends = [one.first + one.frames for one in found]
        assert firsts[0] == 0 and firsts[1:] == ends[:-1]
        assert abs(ends[-1] * FRAME - len(read_recording(SAMPLES / name, RATE)) / RATE) < 0.05


def test_an_alignment_does_not_depend_on_recordings_aligned_before():
    # Else frames would depend on which worker prepares which recordings.
    first = {name: align_sample(name) for name in TEXTS}
    assert {name: align_sample(name) for name in reversed(TEXTS)} == first
    for name, text in TEXTS.items():  # quieter sound moves the means that live normalisation keeps
        align(read_recording(SAMPLES / name, RATE) * np.float32(0.1), [*read_sentences(text)], name)
    assert {name: align_sample(name) for name in TEXTS} == first
