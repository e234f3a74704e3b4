"""infer_pixelcnn.py and infer_wavenet.py from the command line, on tiny models."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import infer_pixelcnn
import infer_wavenet
import sampling.output.sound
from cli.arguments import length
from datasets.quantization import mu_law_decode, mu_law_encode
from models.model_file import load
from sampling import image_rendering, sound_rendering
from sampling.random_streams import RandomStreams
from sampling.wavenet import sample_sounds

ROOT = Path(__file__).resolve().parent.parent


def command(script, *args, cwd):
    return subprocess.run([sys.executable, ROOT / script, *map(str, args)], cwd=cwd,
                          capture_output=True, text=True)


def size(path):
    return Image.open(path).size


def test_commands_from_another_folder(models, tmp_path):
    done = command("infer_pixelcnn.py", "-m", models / "grey", "-c", 2, "-o", "new/a.gif",
                   cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("new/a.gif: 4 images in ") and done.stdout.count("\n") == 1
    assert done.stderr == ""  # no bar where nobody looks
    assert Image.open(tmp_path / "new/a.gif").n_frames == 12

    done = command("infer_wavenet.py", "-m", models / "sound", "-c", 2, "--length", 50, "--plot",
                   cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("samples: 2 sounds of p225, ") and done.stdout.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "sample_0.png", "sample_0.wav", "sample_1.png", "sample_1.wav"]


@pytest.mark.parametrize("script", ["infer_pixelcnn", "infer_wavenet"])
def test_help_and_errors_without_torch(script, models, tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {script}; "
            f"sys.argv[1:] = ['--help']\n"
            f"try: {script}.main()\nexcept SystemExit: assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong = models / ("sound" if script == "infer_pixelcnn" else "grey")
    done = command(f"{script}.py", "-m", wrong, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------- images

def test_sizes_and_labels_of_images(models, call):
    def draw(*args):
        code, _, err = call(infer_pixelcnn, "-o", "a.png", "-m", *args)
        assert code == 0, err
        return np.asarray(Image.open("a.png"))

    assert draw(models / "grey", "-c", 5).shape == (5 * 62 + 2, 5 * 52 + 2)
    assert draw(models / "run", "-c", 5, "--height", 28, "--width", 30).shape == (292, 312)
    number, name, default = (draw(models / "colour", "-c", 4, *label)
                             for label in (["-l", 1], ["-l", "dog"], []))
    assert np.array_equal(number, name) and not np.array_equal(number, default)
    rows = draw(models / "colour", "-c", 5, "-l", "all")
    assert rows.shape == (3 * 59 + 3, 5 * 59 + 3, 3)
    # A row holds the first of the images that its label alone would have.
    assert np.array_equal(rows[:59], draw(models / "colour", "-c", 5, "-l", "cat")[:59])
    assert np.array_equal(draw(models / "colour", "-c", 5, "-l", "all"), rows)
    assert not np.array_equal(draw(models / "colour", "-c", 5, "-l", "all", "--seed", 1), rows)
    assert not np.array_equal(
        draw(models / "colour", "-c", 5, "-l", "all", "--temperature", 0.5), rows)


def test_top_p_of_images(models, call):
    def draw(*args):
        code, _, err = call(infer_pixelcnn, "-m", models / "colour", "-o", "a.png", "-c", 4, *args)
        assert code == 0, err
        return np.asarray(Image.open("a.png"))

    pictures = [draw("--temperature", 2, "--top_p", top_p) for top_p in (1e-6, 0.5, 1)]
    for one, other in itertools.combinations(pictures, 2):
        assert not np.array_equal(one, other)
    assert np.array_equal(pictures[0], draw("--temperature", 0))
    assert np.array_equal(pictures[2], draw("--temperature", 2))
    for wrong in (0, 1.5, -0.1, "nan", "half"):
        code, out, err = call(infer_pixelcnn, "-m", models / "colour", "--top_p", wrong)
        assert code == 2 and out == "" and err.count("\n") == 1
        assert err.startswith(f"error: argument --top_p: '{wrong}' is not a number above 0")
    assert [path.name for path in Path().iterdir()] == ["a.png"]


def test_output_does_not_depend_on_batches(models, call, monkeypatch):
    assert call(infer_pixelcnn, "-m", models / "colour", "-c", 3, "-o", "a.png")[0] == 0
    assert call(infer_wavenet, "-m", models / "sound", "-c", 3, "-o", "a", "--length", 40)[0] == 0
    for images, sounds, most in (("BATCH_IMAGES", "BATCH_SOUNDS", 2),
                                 ("BATCH_FLOATS", "BATCH_FLOATS", 1)):
        monkeypatch.setattr(image_rendering, images, most)
        monkeypatch.setattr(sound_rendering, sounds, most)
        assert call(infer_pixelcnn, "-m", models / "colour", "-c", 3, "-o", "b.png")[0] == 0
        assert call(infer_wavenet, "-m", models / "sound", "-c", 3, "-o", "b", "--length",
                    40)[0] == 0
        assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
        for name in ("sample_0.wav", "sample_2.wav"):
            assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    code, _, error = call(infer_wavenet, "-m", models / "sound", "-c", 3, "--length", 0)
    assert code == 2 and "--count, for 1 at the most" in error


@pytest.mark.parametrize("ending", ["png", "gif", "jpg"])
def test_completion(models, call, ending):
    top = np.tile(np.array([0, 85, 170, 255], np.uint8), 3)[:10]
    Image.fromarray(np.tile(top, (12, 1))).save("one.png")
    Image.new("RGB", (30, 40), (255, 255, 255)).save("two.png")
    code, out, err = call(infer_pixelcnn, "-m", models / "grey", "-c", 4, "-o", f"a.{ending}",
                          "--complete", "one.png", "two.png")
    assert code == 0 and f"a.{ending}: 8 images" in out, err
    width, height = size(f"a.{ending}")
    assert (width, height) == (5 * 63 + 3, 2 * 75 + 3)
    if ending == "png":
        grid = np.asarray(Image.open("a.png"))
        cells = np.stack([[grid[y + 3:y + 75:6, x + 3:x + 63:6] for x in range(0, 315, 63)]
                          for y in (0, 75)])
        assert (cells[0, 0] == top).all() and (cells[1, 0] == 255).all()
        assert (cells[:, 1:, :6] == cells[:, :1, :6]).all()
        assert (cells[:, 1:, 6:] != cells[:, :1, 6:]).mean() > 0.4
    if ending == "gif":
        assert Image.open("a.gif").n_frames == 7


def test_completion_of_an_image_of_one_row(models, call):
    Image.new("RGB", (30, 40), (255, 255, 255)).save("one.png")
    code, out, err = call(infer_pixelcnn, "-m", models / "colour", "--height", 1, "-c", 2,
                          "--complete", "one.png", "-o", "a.png")
    assert code == 0 and "a.png: 2 images" in out, err


def test_config_file(models, call):
    Path("config.json").write_text(json.dumps(
        {"model": str(models / "colour"), "count": 2, "output": "a.png", "label": "all"}))
    assert call(infer_pixelcnn, "--config", "config.json", "--count", 5)[0] == 0
    assert size("a.png") == (5 * 59 + 3, 3 * 59 + 3)


# ---------------------------------------------------------------------------------- sound

def draw_sounds(call, models, folder, *args):
    """The 16-bit samples of the wavs that a command leaves in `folder`, by name."""
    code, _, err = call(infer_wavenet, "-m", models / "sound", "-o", folder, *args)
    assert code == 0, err
    return {path.name: samples_of(path) for path in sorted(Path(folder).glob("*.wav"))}


def samples_of(path, rate=8000):
    samples, its_rate = soundfile.read(path, dtype="int16")
    assert its_rate == rate
    return samples


def test_labels_and_lengths_of_sound(models, call):
    def draw(*args):
        return draw_sounds(call, models, *args)

    sounds = draw("all", "--label", "all", "-c", 2, "--length", 70)
    assert list(sounds) == ["sample_a_b_c_0.wav", "sample_a_b_c_1.wav",
                            "sample_p225_0.wav", "sample_p225_1.wav"]
    assert all(len(samples) == 70 for samples in sounds.values())
    named = draw("named", "--label", "a/b c", "-c", 1, "--length", 70, "-s", 2, "-l", 3)
    numbered = draw("numbered", "--label", 1, "-c", 1, "--length", 1, "--rate", 8000)
    assert np.array_equal(named["sample_0.wav"], sounds["sample_a_b_c_0.wav"])
    assert np.array_equal(numbered["sample_0.wav"], named["sample_0.wav"][:1])
    other = draw("other", "--label", 1, "-c", 1, "--length", 70, "--seed", 1)
    assert not np.array_equal(other["sample_0.wav"], named["sample_0.wav"])
    assert len(draw("default")) == 10
    assert len(draw("short", "-c", 1, "--length", "0.0101s")["sample_0.wav"]) == 81


def test_sounds_are_the_codes_drawn(models, call):
    sounds = draw_sounds(call, models, "a", "-c", 2, "--length", 3000, "--seed", 3)
    model = load(models / "sound", "wavenet").model
    streams = RandomStreams(3, [0, 1])
    codes = torch.cat([*sample_sounds(model, streams, torch.tensor([0, 0]), 3000)], dim=1)
    expected = mu_law_decode(codes.numpy(), 256) * 2 ** 15
    assert np.abs(np.stack([*sounds.values()]) - expected).max() <= 1


@pytest.mark.parametrize("flags", [["--top_p", 0.5], ["--precision", "bf16"],
                                   ["--temperature", 0.3]])
def test_sampling_flags_change_sounds_reproducibly(models, call, flags):
    def draw(*args):
        return draw_sounds(call, models, "a", "-c", 1, "--length", 400, *args)["sample_0.wav"]

    assert not np.array_equal(draw(*flags), draw())
    assert np.array_equal(draw(*flags), draw(*flags))
    assert np.array_equal(draw("--temperature", 0, "--top_p", 0.5), draw("--temperature", 0))


def test_primed_sound(models, call):
    tone = 0.5 * np.sin(np.arange(400) / 3)
    soundfile.write("tone.wav", tone, 8000, subtype="FLOAT")
    code, out, err = call(infer_wavenet, "-m", models / "sound", "-c", 1, "--length", 30,
                          "--prime", "tone.wav", "--plot")
    assert code == 0 and "1 sound of p225, 0.00375 s" in out, err
    samples, _ = soundfile.read("samples/sample_0.wav")
    assert len(samples) == 430
    codes, _ = mu_law_encode(tone, 256)
    assert np.abs(samples[:400] - mu_law_decode(codes, 256)).max() < 1e-4
    assert Path("samples/sample_0.png").stat().st_size > 5000


def test_endless_sound_stops_when_the_wav_is_full(models, call, monkeypatch):
    monkeypatch.setattr(sampling.output.sound, "MOST_SAMPLES", 1500)
    code, out, err = call(infer_wavenet, "-m", models / "sound", "-c", 2, "--length", 0, "--plot")
    assert code == 0 and "2 sounds of p225, 0.375 s" in out and "can't hold more" in err
    assert len(samples_of("samples/sample_1.wav")) == 1500
    assert Path("samples/sample_1.png").exists()


@pytest.mark.parametrize("text, samples", [
    ("4096", 4096), ("30s", 480000), ("0.5s", 8000), ("0.00004s", 1), ("1e2s", 1600000),
    ("0", None)])
def test_length_of_sound(text, samples):
    assert length(text).samples(16000) == samples
