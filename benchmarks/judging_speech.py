"""Judge how well a WaveNet that speaks texts is understood.

    python benchmarks/judging_speech.py -m MODEL --corpus CORPUS --data RECORDINGS

RECORDINGS is what preprocess.py --features text made the CORPUS from, MODEL was trained on that.
pocketsphinx, which has no part in the training, hears the held-back recordings, copies that the
WaveNet draws from their true mel frames, and what the model says when it has only their texts. Its
grammar allows the texts of all recordings. The script prints the share of words it gets right, the
number of wrong words being those to insert, remove or replace. Then it hears the model say
--strings random strings of five digits, with a grammar of any five digits. --linguistic names a
WaveNet that reads phonemes and pitch itself, see benchmarks/linguistic.py; it then speaks the texts
instead of MODEL's.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.linguistic import linguistic_frames
from benchmarks.recognizer import DIGITS, Recognizer, edit_distance, words_of
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.audio.features import Features, compute_features
from datasets.audio.recordings import find_recordings, read_recording
from datasets.corpus.reader import Corpus
from datasets.quantization import decode_sound
from datasets.text.frames import phoneme_rows
from datasets.text.phonemes import read_sentences
from datasets.text.transcripts import Transcripts
from models.model_file import load
from models.wavenet import WaveNet
from sampling.rendering import SamplingOptions
from sampling.sound_rendering import Sound, draw_sounds
from sampling.speech import SpokenText

STRING = 5  # digits


class Score(NamedTuple):
    """wrong of `words` words, and entirely right texts of all."""

    wrong: int
    words: int
    right: int
    texts: int

    def __str__(self) -> str:
        return (f"{1 - self.wrong / self.words:.1%} of {self.words} words right, "
                f"{self.right} of {self.texts} texts")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, metavar="FILE|DIR")
    parser.add_argument("--corpus", required=True, metavar="DIR")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--transcripts", metavar="FILE")
    parser.add_argument("--linguistic", metavar="FILE|DIR")
    parser.add_argument("--count", type=positive_int, default=60,
                        help="of held-back recordings (default: 60)")
    parser.add_argument("--strings", type=positive_int, default=40,
                        help="of five digits (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Hear recordings, copies and spoken texts."""
    args = arguments()
    file, corpus, root = load(args.model, "wavenet"), Corpus(args.corpus), Path(args.data)
    if not file.speaks_texts:
        raise UserError(f"--model {args.model}: was trained without texts; name another")
    speech, model, rate = file.speech(), file.model, file.data["rate"]
    linguistic = args.linguistic and load(args.linguistic, "wavenet").model
    transcripts = Transcripts(root, args.transcripts and Path(args.transcripts))
    held_back = [root / one.name for one in corpus.validation.recordings[:args.count]]
    texts = [transcripts.text_of(path) for path in held_back]
    features, options = Features(**file.data["features"]), SamplingOptions(args.seed)

    def read(number: int) -> np.ndarray:
        return read_recording(held_back[number], rate)

    def copy(number: int) -> np.ndarray:
        frames = compute_features(held_back[number], features)
        return draw(Sound(number, length=len(frames) * features.hop, frames=frames))

    def speak(number: int, text: str = "") -> np.ndarray:
        text = text or texts[number]
        if not linguistic:
            return draw(Sound(number, text=SpokenText(speech, text)))
        sentences = []
        for sentence in read_sentences(text):
            rows = phoneme_rows(sentence)
            said = speech.say(torch.from_numpy(rows))
            frames = linguistic_frames(rows, said.frames[0].numpy(), said.pitch[0].numpy())
            length = len(frames) * linguistic.config.hop
            sentences.append(draw(Sound(number, length=length, frames=frames), linguistic))
        return np.concatenate(sentences)

    def draw(sound: Sound, speaker: WaveNet = model) -> np.ndarray:
        codes = torch.cat([*draw_sounds(speaker, [sound], options)], dim=1)[0]
        return decode_sound(codes.numpy(), speaker.config.levels, file.data["encoding"])

    recognizer = Recognizer()
    recognizer.expect_sentences(all_texts(transcripts, root))
    for name, sound_of in (("recordings", read), ("copies", copy), ("from text", speak)):
        print(f"{name}: {hear(recognizer, texts, sound_of, rate, name)}", flush=True)
    recognizer.expect_digits(STRING)
    random = np.random.default_rng(args.seed)
    strings = [" ".join(random.choice(DIGITS, STRING)) for _ in range(args.strings)]
    print("strings of digits: " + str(hear(
        recognizer, strings, lambda number: speak(number, strings[number]), rate, "digits")))


def all_texts(transcripts: Transcripts, root: Path) -> Iterator[str]:
    """Yield the texts of all recordings that have one."""
    for path in find_recordings(root):
        try:
            yield transcripts.text_of(path)
        except UserError:
            continue


def hear(recognizer: Recognizer, texts: list[str], sound_of: Callable[[int], np.ndarray],
         rate: int, name: str) -> Score:
    """Recognise the sounds of `texts`, and count the words."""
    score = Score(0, 0, 0, 0)
    for number, text in enumerate(tqdm(texts, desc=name, disable=None)):
        said = recognizer.names(words_of(text))
        wrong = edit_distance(said, recognizer(sound_of(number), rate))
        score = Score(score.wrong + wrong, score.words + len(said), score.right + (not wrong),
                      score.texts + 1)
    return score


if __name__ == "__main__":
    run_script(main)
