"""What a text says: its sentences as words, and the words as phonemes.

gruut, here with its English dictionary, writes numbers, times, sums of money and abbreviations
as words, looks words up in a pronouncing dictionary, and guesses those that no dictionary has.
Phonemes are the 39 of CMU's dictionary (ARPAbet), which pocketsphinx aligns with recordings.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from common.errors import UserError

SILENCE = "SIL"
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = ("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S",
              "SH", "T", "TH", "V", "W", "Y", "Z", "ZH")
PHONEMES = (SILENCE, *VOWELS, *CONSONANTS)
PAUSES = ("", ",", ".", "?", "!")  # after a word: none, within a sentence, at its end
# gruut's phonemes in the international alphabet. Its two unstressed and stressed "uh" are one here.
FROM_IPA = {"ɑ": "AA", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɔ": "AO", "aʊ": "AW", "aɪ": "AY",
            "ɛ": "EH", "ɚ": "ER", "eɪ": "EY", "ɪ": "IH", "i": "IY", "oʊ": "OW", "ɔɪ": "OY",
            "ʊ": "UH", "u": "UW", "b": "B", "t͡ʃ": "CH", "d": "D", "ð": "DH", "f": "F", "ɡ": "G",
            "h": "HH", "d͡ʒ": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P",
            "ɹ": "R", "s": "S", "ʃ": "SH", "t": "T", "θ": "TH", "v": "V", "w": "W", "j": "Y",
            "z": "Z", "ʒ": "ZH"}
STRESS = {"ˈ": 1, "ˌ": 2}  # primary and secondary; 0 is none
SPELLED_DIGITS = 5  # as many digits in a row, as in telephone numbers, are said one by one
LONGEST = 400  # characters that gruut reads at a time: its time grows with their square
SIGNS = {"#": "pound", "*": "star", "@": "at", "=": "equals", "+": "plus"}
FRACTIONS = {("1", "2"): "one half", ("1", "3"): "one third", ("2", "3"): "two thirds",
             ("1", "4"): "one quarter", ("3", "4"): "three quarters"}
ABBREVIATION = r"\b[A-Z][a-z]{0,3}\.$"  # such as Dr. and St.


class Phoneme(NamedTuple):
    """A phoneme of PHONEMES, and the stress of its syllable if it is a vowel."""

    symbol: str
    stress: int = 0


class Word(NamedTuple):
    """A word as it is said. pause: the one of PAUSES that follows it."""

    text: str
    phonemes: tuple[Phoneme, ...]
    pause: str = ""


Sentence = list[Word]


def read_sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a text, one after the other, without those that say nothing.

    A long text is read a piece at a time, so the first sentence comes at once.
    Raises UserError if the package that reads it is not installed.
    """
    try:
        from gruut import sentences
    except ImportError:
        raise UserError("text needs the package gruut; pip install gruut") from None
    for piece in _pieces(_normalize(text)):
        for sentence in sentences(piece, lang="en-us"):
            words = _words_of(sentence)
            if words:
                yield words


def check_text(text: str, source: str) -> None:
    """Raise UserError naming the `source` of a text that says nothing."""
    if next(read_sentences(text), None) is None:
        raise UserError(f"{source}: says nothing in English; give words or numbers")


def _normalize(text: str) -> str:
    """Rewrite what gruut misreads: accents, dashes, signs, fractions, and strings of digits."""
    text = re.sub(r"(\d)([¼-¾⅐-⅞])", r"\1 and \2", text)
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    plain = re.sub(r"\s*[\u2012-\u2015]\s*|\s+-+\s+", ", ", plain)
    plain = plain.replace("\u2019", "'")
    plain = re.sub(r"(?<![\d/])(\d+)[/\u2044](\d+)(?![\d/])", _fraction, plain)
    plain = re.sub(r"#(?=\s?\d)", " number ", plain)
    for sign, words in SIGNS.items():
        plain = plain.replace(sign, f" {words} ")
    telephone = rf"(?<![\w.,])\d(?:[-\s]?\d){{{SPELLED_DIGITS - 1},}}(?![\w]|[.,]\d)"
    return re.sub(telephone, lambda found: " ".join(re.findall(r"\d", found[0])), plain)


def _fraction(found: re.Match[str]) -> str:
    above, below = found.groups()
    return FRACTIONS.get((above, below), f"{above} over {below}")


def _pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of whole sentences, or if those are too long, of whole words.

    gruut finds the sentences in a piece. It knows that one does not end with "Dr.".
    """
    for paragraph in re.split(r"\n\s*\n", text):
        piece = ""
        for part in re.split(r"(?<=[.!?])\s+(?=[^a-z\s])", paragraph):
            if len(piece) + len(part) > LONGEST and not re.search(ABBREVIATION, piece):
                yield from _shortened(piece)
                piece = ""
            piece = f"{piece} {part}" if piece else part
        yield from _shortened(piece)


def _shortened(piece: str) -> Iterator[str]:
    """Cut a piece between words as often as it takes."""
    while len(piece) > LONGEST:
        cut = max(piece.rfind(mark, 0, LONGEST) for mark in (", ", "; ", ": "))
        cut = cut if cut > 0 else piece.rfind(" ", 0, LONGEST)
        cut = cut + 1 if cut > 0 else LONGEST
        yield piece[:cut]
        piece = piece[cut:]
    yield piece


def _words_of(sentence: object) -> Sentence:
    """The words of gruut's sentence that have phonemes, with the pauses after them."""
    words: Sentence = []
    for word in sentence:  # type: ignore[attr-defined]
        if not word.is_spoken:
            mark = word.text if word.text in PAUSES else "," if word.is_minor_break else ""
            mark = "." if word.is_major_break and mark not in PAUSES[2:] else mark
            if words and mark:
                words[-1] = words[-1]._replace(pause=mark)
        elif word.phonemes:
            phonemes = tuple(_phoneme(one) for one in word.phonemes)
            words.append(Word(word.text, phonemes))
    if words and words[-1].pause not in PAUSES[2:]:
        words[-1] = words[-1]._replace(pause=words[-1].pause or ".")
    return words


def _phoneme(ipa: str) -> Phoneme:
    """Convert one of gruut's phonemes."""
    return Phoneme(FROM_IPA[ipa.lstrip("".join(STRESS))], STRESS.get(ipa[0], 0))
