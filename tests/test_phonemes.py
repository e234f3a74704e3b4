"""Texts are read as people say them: numbers, signs and unknown words, sentence by sentence."""

import time
from itertools import islice

import pytest

from common.errors import UserError
from datasets.text.phonemes import PHONEMES, check_text, read_sentences


def said(text):
    return [" ".join(word.text + word.pause for word in sentence)
            for sentence in read_sentences(text)]


@pytest.mark.parametrize("text, sentences", [
    ("Hello, world.", ["Hello, world."]),
    ("no stop at the end", ["no stop at the end."]),
    ("Really? Yes! It is.", ["Really?", "Yes!", "It is."]),
    ("You have 7 messages.", ["You have seven messages."]),
    ("at 10:30", ["at ten thirty."]),
    ("Call 555-1234.", ["Call five five five one two three four."]),
    ("In 1999.", ["In nineteen ninety nine."]),
    ("It costs $5.50.", ["It costs five dollars fifty cents."]),
    ("Dr. Smith", ["Doctor Smith."]),
    ("press # or *", ["press pound or star."]),
    ("room #4", ["room number four."]),
    ("2½ cups and 3/4", ["two and one half cups and three quarters."]),
    ("naïve café", ["naive cafe."]),
    ("yes – no", ["yes, no."]),
    ("привет and hello 😀", ["and hello."]),
])
def test_what_is_said(text, sentences):
    assert said(text) == sentences


def test_phonemes_and_stress():
    (hello, zorblax), = read_sentences("Hello zorblax")
    assert " ".join(phoneme.symbol for phoneme in hello.phonemes) == "HH EH L OW"
    assert [phoneme.stress for phoneme in hello.phonemes] == [0, 0, 0, 1]
    # A word of no dictionary has phonemes too.
    assert {phoneme.symbol for phoneme in zorblax.phonemes} <= set(PHONEMES)
    assert zorblax.phonemes[0].symbol == "Z"


@pytest.mark.parametrize("text", ["", " \n", "...", "😀😀", "Привет, мир!", "\0", "?!"])
def test_texts_that_say_nothing(text):
    assert said(text) == []
    with pytest.raises(UserError, match=r"notes.txt: says nothing in English; give words"):
        check_text(text, "notes.txt")


def test_a_long_text_begins_at_once_and_loses_no_word():
    text = "The quick brown fox jumps over the lazy dog. " * 20_000  # 0.9 MB
    said("warm up")
    began = time.monotonic()
    first = list(islice(read_sentences(text), 5))
    assert time.monotonic() - began < 5  # all of it takes minutes
    assert [len(sentence) for sentence in first] == [9] * 5
    words = "one two three four five six seven eight nine ten " * 30
    assert sum(len(sentence) for sentence in read_sentences(words)) == 300


def test_a_word_without_end():
    assert len(list(read_sentences("x" * 1000))) >= 1
