"""Recognise speech with pocketsphinx, among sentences that are known, or among digits."""

from collections.abc import Iterable, Sequence

import numpy as np
import soxr
from pocketsphinx import Decoder

from datasets.text import alignment
from datasets.text.phonemes import Word, read_sentences

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def words_of(text: str) -> list[Word]:
    """Return the words of a text, as they are said."""
    return [word for sentence in read_sentences(text) for word in sentence]


class Recognizer:
    """Recognises which words a sound says. Words are named by their phonemes.

    grammar: of JSGF, for what can be said, made of the names that `names` gives.
    """

    def __init__(self) -> None:
        self.decoder = Decoder(samprate=alignment.RATE, lm=None, loglevel="FATAL")

    def names(self, words: Iterable[Word]) -> list[str]:
        """Name words; those that sound alike have one name."""
        found = []
        for word in words:
            pronunciation = " ".join(phoneme.symbol for phoneme in word.phonemes)
            name = pronunciation.replace(" ", "_").lower()
            if self.decoder.lookup_word(name) is None:
                self.decoder.add_word(name, pronunciation, True)
            found.append(name)
        return found

    def expect_sentences(self, texts: Iterable[str]) -> None:
        """Expect one of these texts from now on."""
        sentences = sorted({" ".join(self.names(words_of(text))) for text in texts})
        self._expect(" | ".join(filter(None, sentences)))

    def expect_digits(self, count: int) -> None:
        """Expect `count` digits from now on."""
        digits = "|".join(self.names(words_of(" ".join(DIGITS))))
        self._expect(" ".join([f"({digits})"] * count))

    def _expect(self, expansion: str) -> None:
        self.decoder.add_jsgf_string(
            "expected", f"#JSGF V1.0;\ngrammar expected;\npublic <text> = {expansion};\n")
        self.decoder.activate_search("expected")

    def __call__(self, samples: np.ndarray, rate: int) -> list[str]:
        """Return the names of the words that a sound (n,), float32 at `rate` Hz, says."""
        samples = soxr.resample(samples, rate, alignment.RATE)
        self.decoder.reinit_feat()  # the sound heard before changes nothing
        self.decoder.start_utt()
        self.decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes(),
                                 full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return found.hypstr.split() if found else []


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the words to insert, remove or replace that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]
