"""Draw a few samples of the first labels while a network is trained, and write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from common.file_names import distinct_file_names
from common.files import atomic_write
from datasets.quantization import dequantize_pixels
from models.pixelcnn import PixelCNN
from models.wavenet import WaveNet
from sampling.image_rendering import Image, draw_images, image_batches
from sampling.output.image_grid import save_picture
from sampling.output.sound import pcm_table
from sampling.output.sound_plots import plot_sound
from sampling.rendering import SamplingOptions
from sampling.sound_rendering import Sound, draw_sounds

SOUNDS, SECONDS = 8, 2  # how many sounds, and how long each is at least
ROWS, COLUMNS = 10, 8  # of a picture; a row shows a label


def draw_sound_previews(model: WaveNet, seed: int, path: Path, label_names: Sequence[str],
                        rate: int, part: Any = None, encoding: str = "mulaw") -> dict[str, Path]:
    """Write a wav for each of the first labels, and its waveform and spectrogram as PNG.

    seed: of the random streams. path: what the file names begin with; the label's name follows.
    rate: of the sound, in Hz. A sound lasts at least as long as the receptive field.
    part: a `datasets.corpus.reader.Part`. A network with features speaks the features of its first
    recordings, or of their beginnings, instead of drawing each label. encoding: of its codes.
    Returns the files by name: sound_LABEL and plot_LABEL, or sound and plot without labels.
    """
    if model.config.features:
        sounds, endings = _sounds_of_recordings(model, label_names, rate, part)
    else:
        length = max(SECONDS * rate, model.config.receptive_field)
        endings = [f"_{name}" for name in distinct_file_names(label_names)[:SOUNDS]] or [""]
        sounds = [Sound(number, number if label_names else None, length)
                  for number in range(len(endings))]
    blocks = []
    with _bar(max(sound.length for sound in sounds)) as bar:
        for codes in draw_sounds(model, sounds, SamplingOptions(seed)):
            blocks.append(codes)
            bar.update(codes.shape[1])
    drawn = pcm_table(model.config.levels, encoding)[torch.cat(blocks, dim=1).numpy()]
    files: dict[str, Path] = {}
    for sound, ending, samples in zip(sounds, endings, drawn, strict=True):
        samples = samples[:sound.length]
        wav, plot = (path.with_name(f"{path.name}{ending}.{kind}") for kind in ("wav", "png"))
        with atomic_write(wav) as temporary:
            soundfile.write(temporary, samples, rate, format="WAV", subtype="PCM_16")
        plot_sound(plot, samples / np.float32(2 ** 15), rate, wav.stem)
        files |= {f"sound{ending}": wav, f"plot{ending}": plot}
    return files


def _sounds_of_recordings(model, label_names, rate, part):
    """Return a sound for each of the first recordings of `part`, and endings of file names."""
    recordings = part.recordings[:SOUNDS]
    most_frames = -(-SECONDS * rate // model.config.hop)
    sounds = []
    for number, recording in enumerate(recordings):
        frames = part.read_frames(number, 0, most_frames)
        sounds.append(Sound(number, recording.label if label_names else None,
                            len(frames) * model.config.hop, frames=frames))
    return sounds, [f"_{name}" for name in distinct_file_names([one.name for one in recordings])]


def draw_image_previews(model: PixelCNN, seed: int, path: Path, labels: Sequence, height: int,
                        width: int) -> dict[str, Path]:
    """Write a PNG of images, a row for each of the first labels.

    seed: of the random streams. path: of the file, without its ending. labels: numbers, or vectors
    (N, width), as in a batch; empty for a network without. height, width: of an image, in pixels.
    Returns the file by name: pictures.
    """
    rows = min(len(labels), ROWS) or COLUMNS
    conditions = list(torch.as_tensor(labels[:ROWS])) if len(labels) else [None] * rows
    images = [Image(number, conditions[number // COLUMNS]) for number in range(rows * COLUMNS)]
    batches = image_batches(model.config, images, height, width)
    with _bar(len(batches) * height) as bar:
        codes = draw_images(model, images, height, width, SamplingOptions(seed), bar.update)
    pixels = dequantize_pixels(codes.permute(0, 2, 3, 1).numpy(), model.config.levels)
    picture = path.with_name(f"{path.name}.png")
    save_picture(picture, pixels.reshape(rows, COLUMNS, *pixels.shape[1:]))
    return {"pictures": picture}


def _bar(total):
    return tqdm(total=total, desc="samples", leave=False, dynamic_ncols=True, disable=None)
