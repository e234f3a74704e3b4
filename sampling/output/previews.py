"""What a network draws while it is trained: a few samples of the first labels."""

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from cli.labels import distinct
from common.files import atomic_write
from datasets.quantization import dequantize_pixels
from sampling import pixelcnn, wavenet
from sampling.output.image_grid import save_picture
from sampling.output.sound import pcm_of_codes
from sampling.output.sound_plots import plot_sound
from sampling.random_streams import RandomStreams

SOUNDS, SECONDS = 8, 2  # labels that are drawn, and how long each sound is at the least
ROWS, COLUMNS = 10, 8  # of a picture; a row is a label


def draw_sounds(model, seed, path, label_names, rate, part=None):
    """Write a wav for each of the first labels, and its waveform and spectrogram as PNG.

    model: a WaveNet. seed: of the random numbers. path: that the files' names begin with; the
    label's follows. rate: of the sound, in Hz. A sound is at least as long as the receptive field.
    part: a `Part`; of a model with features its first recordings are said, or their
    beginnings, in place of a sound for each label.
    Returns the files by name: sound_LABEL and plot_LABEL, or sound and plot if there are no labels.
    """
    if model.config.features:
        count = min(len(part.recordings), SOUNDS)
        ofs = [f"_{name}" for name in distinct([one.name for one in part.recordings[:count]])]
        most = -(-SECONDS * rate // model.config.hop)
        frames = [part.read_frames(number, 0, most) for number in range(count)]
        lengths = [len(of_one) * model.config.hop for of_one in frames]
        labels = [part.recordings[number].label for number in range(count)]
        sounds = _drawn(model, seed, range(count), labels if label_names else None, max(lengths),
                        frames)
    else:
        ofs = [f"_{name}" for name in distinct(label_names)[:SOUNDS]] or [""]
        length = max(SECONDS * rate, model.config.receptive_field)
        lengths = [length] * len(ofs)
        sounds = _drawn(model, seed, range(len(ofs)), range(len(ofs)) if label_names else None,
                        length)
    files = {}
    for of, length, samples in zip(ofs, lengths, sounds, strict=True):
        samples = samples[:length]
        wav, plot = (path.with_name(f"{path.name}{of}.{kind}") for kind in ("wav", "png"))
        with atomic_write(wav) as temporary:
            soundfile.write(temporary, samples, rate, format="WAV", subtype="PCM_16")
        plot_sound(plot, samples / np.float32(2 ** 15), rate, wav.stem)
        files |= {f"sound{of}": wav, f"plot{of}": plot}
    return files


def _drawn(model, seed, streams, label, length, frames=None):
    """16-bit samples (streams, length), of labels (numbers, or None) and what the frames, of each
    stream (K, features), say."""
    if label is not None:
        label = torch.tensor(label, device=model.logits.weight.device)
    if frames is not None:
        frames = [*map(torch.from_numpy, frames)]
    blocks = []
    with _bar(length) as bar:
        for codes in wavenet.sample_sounds(model, RandomStreams(seed, streams), label, length,
                                           frames=frames):
            blocks.append(codes)
            bar.update(codes.shape[1])
    return pcm_of_codes(model.config.levels)[torch.cat(blocks, dim=1).numpy()]


def draw_picture(model, seed, path, labels, height, width):
    """Write a PNG of images, a row for each of the first labels.

    model: a PixelCNN. seed: of the random numbers. path: the file's, without its ending. labels:
    their numbers or vectors, as of a batch, or none. height, width: of an image. Returns the file
    by name: pictures.
    """
    rows = min(len(labels), ROWS) or COLUMNS
    label = (torch.as_tensor(labels[:ROWS], device=model.logits.weight.device)
             .repeat_interleave(COLUMNS, dim=0) if len(labels) else None)
    with _bar(height) as bar:
        codes = pixelcnn.sample_images(model, RandomStreams(seed, range(rows * COLUMNS)), label,
                                       height, width, on_row=bar.update)
    pixels = dequantize_pixels(codes.permute(0, 2, 3, 1).numpy(), model.config.levels)
    picture = path.with_name(f"{path.name}.png")
    save_picture(picture, pixels.reshape(rows, COLUMNS, *pixels.shape[1:]))
    return {"pictures": picture}


def _bar(total):
    return tqdm(total=total, desc="samples", leave=False, dynamic_ncols=True, disable=None)
