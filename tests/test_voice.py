"""The voice that comes along is understood, by a recogniser and by our own aligner."""

import numpy as np
import pytest
import soundfile
from forks import forked
from test_readme import ROOT

from benchmarks.recognizer import Recognizer, edit_distance, words_of
from datasets.corpus.reader import Corpus
from datasets.text.frames import TEXT_COLUMNS, phoneme_rows, read_phonemes
from datasets.text.phonemes import read_sentences

VOICE = ROOT / "assets/models/voice.pt"
TEXTS = {"digits": "seven two nine four one", "extension": "Please enter your extension.",
         "seconds": "one eight zero three six"}


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A folder with a wav of each of TEXTS, and their transcripts."""
    folder = tmp_path_factory.mktemp("voice")
    for name, text in TEXTS.items():
        forked(f"infer_wavenet.py -m {VOICE} --text '{text}' -o {folder / name}", folder)
        (folder / name / "sample_0.wav").rename(folder / f"{name}.wav")
        (folder / name).rmdir()
    (folder / "transcripts.txt").write_text("".join(f"{name}: {text}\n"
                                                    for name, text in TEXTS.items()))
    return folder


def test_digits_are_understood(spoken):
    recognizer, wrong = Recognizer(), 0
    recognizer.expect_digits(5)
    for name in ("digits", "seconds"):
        sound, rate = soundfile.read(spoken / f"{name}.wav", dtype="float32")
        wrong += edit_distance(recognizer.names(words_of(TEXTS[name])), recognizer(sound, rate))
    assert wrong <= 2


def test_the_recogniser_tells_texts_apart(spoken):
    recognizer = Recognizer()
    recognizer.expect_sentences([*TEXTS.values(), "Goodbye.", "Please enter your number."])
    sound, rate = soundfile.read(spoken / "extension.wav", dtype="float32")
    assert recognizer(sound, rate) == recognizer.names(words_of(TEXTS["extension"]))


def test_what_it_says_can_be_aligned(spoken):
    ended = forked(f"preprocess.py --data {spoken} --features text --rate 16000 --labels none "
                   f"--validation 0 --workers 1 --strict --output {spoken / 'corpus'}", spoken)
    assert "3 recordings read" in ended.out
    corpus = Corpus(spoken / "corpus")
    for index, recording in enumerate(corpus.train.recordings):
        sentence, = read_sentences(TEXTS[recording.name.removesuffix(".wav")])
        frames = corpus.train.read_frames(index)
        found = read_phonemes(frames)
        # Silence may lie elsewhere than the text has it; the phonemes are those of the text.
        said, wanted = (rows[rows[:, 0] > 0] for rows in (found.rows, phoneme_rows(sentence)))
        assert np.array_equal(said[:, :4], wanted[:, :4])
        voiced = frames[:, TEXT_COLUMNS.index("voiced")] > 0
        pitch = np.exp(frames[voiced, TEXT_COLUMNS.index("pitch")])
        assert 0.2 < voiced.mean() < 0.95 and 100 < pitch.mean() < 350  # a woman's
