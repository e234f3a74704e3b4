"""Several models, labels and primes in one call, and the page that compares them."""

import base64
import io
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import infer_pixelcnn
import infer_wavenet
from datasets.quantization import mu_law_decode, mu_law_encode
from models.model_file import read, save


class Page(HTMLParser):
    """What a browser would find: the texts, the sources of pictures and sounds, the links."""

    def __init__(self, path):
        super().__init__()
        self.pictures, self.sounds, self.links, self.others = [], [], [], []
        self.text, self.path = "", path
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.pictures.append(self.decoded(attributes["src"], "image/png"))
        elif tag == "audio":
            self.sounds.append(self.decoded(attributes["src"], "audio/wav"))
        elif tag == "a":
            self.links.append(self.path.parent / attributes["href"])
        else:
            self.others += [value for name, value in attributes.items() if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data + "\n"

    @staticmethod
    def decoded(source, kind):
        assert source.startswith(f"data:{kind};base64,")
        return base64.b64decode(source.partition(",")[2])


@pytest.fixture
def run(models, tmp_path):
    """A run's folder: snapshots of `sound` with other weights, its best model, its log."""
    folder = tmp_path / "run <1>"
    folder.mkdir()
    content = read(models / "sound", "wavenet")
    log = [{"iteration": n, "main/bits/dim": 5.0, "validation/main/bits/dim": 4 + n / 1000}
           for n in (500, 1000)]
    for name, factor in (("snapshot_iter_500", 2), ("snapshot_iter_1000", 3),
                         ("wavenet_500", 2)):
        weights = {key: value * factor for key, value in content["weights"].items()}
        save(folder / name, {**content, "weights": weights})
    (folder / "log").write_text(json.dumps(log))
    (folder / "config.json").write_text(json.dumps({"data": "corpus & <more>", "batchsize": 4}))
    for name in ("loss.png", "speed.png", "data.png"):
        Image.new("RGB", (30, 20)).save(folder / name)
    return folder


def wavs(folder):
    return {path.relative_to(folder).as_posix(): soundfile.read(path, dtype="int16")[0]
            for path in sorted(Path(folder).rglob("*.wav"))}


def test_page_of_all_snapshots_and_labels(call, run):
    code, out, err = call(infer_wavenet, "-m", run, "--snapshots", "--label", "all", "-c", 1,
                          "--length", 300, "-o", "out")
    assert code == 0, err
    sounds = wavs("out")
    assert list(sounds) == [f"snapshot_iter_{n}/sample_{label}_0.wav" for n in (1000, 500)
                            for label in ("a_b_c", "p225")]
    assert re.findall(r"^out/(snapshot_iter_\d+): 2 sounds of p225, a/b c, 0.075 s of sound in",
                      out, re.M) == ["snapshot_iter_500", "snapshot_iter_1000"]
    assert "out/index.html" in out

    page = Page(Path("out/index.html"))
    assert page.others == []  # it needs nothing from anywhere
    assert len(page.links) == 4 and all(link.exists() for link in page.links)
    for link, wav in zip(page.links, page.sounds, strict=True):
        assert np.array_equal(soundfile.read(io.BytesIO(wav), dtype="int16")[0],
                              sounds[link.relative_to("out").as_posix()])
    assert len(page.pictures) == 4 + 3  # of sounds and of the run
    for picture in page.pictures:
        Image.open(io.BytesIO(picture)).verify()
    for text in ("p225", "a/b c", "snapshot_iter_500", "4.5000 bits/dim in validation",
                 "5.0000 bits/dim in validation", "corpus & <more>", "0.0375 s in", "run <1>"):
        assert text in page.text, text


def test_several_models_draw_what_each_draws_alone(call, models, run):
    def draw(folder, *files):
        code, out, err = call(infer_wavenet, "-o", folder, "-c", 2, "--length", 200, "-m", *files)
        assert code == 0, err
        return wavs(folder)

    # A run's folder is its best model; from several folders, names tell which.
    together = draw("all", models / "sound", run, run / "snapshot_iter_1000")
    alone = [draw(f"alone{n}", file) for n, file in enumerate(
        (models / "sound", run / "wavenet_500", run / "snapshot_iter_1000"))]
    assert [list(its) for its in alone] == [["sample_0.wav", "sample_1.wav"]] * 3
    names = [f"{models.name}_sound", "run_1__wavenet_500", "run_1__snapshot_iter_1000"]
    assert sorted(together) == sorted(f"{name}/sample_{n}.wav" for name in names for n in (0, 1))
    for name, its in zip(names, alone, strict=True):
        for wav, samples in its.items():
            assert np.array_equal(together[f"{name}/{wav}"], samples)
    assert Path("all/index.html").exists() and not Path("alone0/index.html").exists()


def test_a_folder_of_primes(call, models):
    tones = {"one": 0.5 * np.sin(np.arange(4000) / 3), "two/one": 0.3 * np.sin(np.arange(500) / 5)}
    for name, samples in tones.items():
        Path("primes", name).parent.mkdir(exist_ok=True, parents=True)
        soundfile.write(f"primes/{name}.wav", samples, 8000, subtype="FLOAT")
    flags = ["-m", models / "sound", "-c", 2, "--length", 30, "--prime_seconds", 0.1]
    code, out, err = call(infer_wavenet, *flags, "--prime", "primes", "-o", "out")
    assert code == 0 and "4 sounds of p225, 0.015 s of sound" in out, err
    sounds = wavs("out")
    assert {name: len(samples) for name, samples in sounds.items()} == {
        "sample_one_0.wav": 830, "sample_one_1.wav": 830,
        "sample_two_one_0.wav": 530, "sample_two_one_1.wav": 530}
    for name, samples in tones.items():
        codes = mu_law_encode(samples[:800], 256)[0]
        given = sounds[f"sample_{name.replace('/', '_')}_1.wav"][:len(codes)]
        assert np.abs(given / 2 ** 15 - mu_law_decode(codes, 256)).max() < 1e-4
        # Which goes on as from this file alone.
        assert call(infer_wavenet, *flags, "--prime", f"primes/{name}.wav", "-o", "alone")[0] == 0
        for number in (0, 1):
            assert np.array_equal(wavs("alone")[f"sample_{number}.wav"],
                                  sounds[f"sample_{name.replace('/', '_')}_{number}.wav"])
    page = Page(Path("out/index.html"))
    assert "p225, one\n" in page.text and "p225, two/one\n" in page.text
    assert "0.00375 s in" in page.text  # what was drawn, not what was given


def test_primes_whose_names_are_not_utf_8(call, models):
    Path("primes").mkdir()
    try:
        Path(os.fsdecode(b"primes/caf\xe9.wav")).touch()
    except OSError:
        pytest.skip("such names can't be on this disk")
    for name in (b"caf\xe9", b"tea"):
        soundfile.write(b"primes/" + name + b".wav", 0.5 * np.sin(np.arange(400) / 3), 8000,
                        format="WAV")
    code, _, err = call(infer_wavenet, "-m", models / "sound", "-c", 1, "--length", 30,
                        "--prime", "primes", "--plot", "-o", "out")
    assert code == 0, err
    assert list(wavs("out")) == ["sample_caf\u00e9_0.wav", "sample_tea_0.wav"]
    assert "p225, caf\u00e9\n" in Page(Path("out/index.html")).text


def test_page_lists_settings_and_ignores_malformed_run_files(call, run):
    for name, text in (("log", '{"nothing": 0}'), ("config.json", "[1]")):
        (run / name).write_text(text)
    code, _, err = call(infer_wavenet, "-m", run, "--label", "all", "-c", 1, "--length", 9,
                        "--temperature", 0, "-o", "out")
    assert code == 0, err
    text = Page(Path("out/index.html")).text
    assert "--seed\n0\n" in text and "--temperature\n0.0\n" in text
    assert "--prime" not in text and "--plot" not in text


def test_label_all_with_a_model_without_labels_among_others(call, models):
    content = read(models / "sound", "wavenet")
    weights = {name: weight for name, weight in content["weights"].items()
               if not name.endswith("condition.weight")}
    save("plain", {**content, "weights": weights, "label_names": [],
                   "config": {**content["config"], "labels": 0}})
    flags = ["--label", "all", "-c", 1, "--length", 30]
    code, out, err = call(infer_wavenet, "-m", models / "sound", "plain", *flags)
    assert code == 0, err
    assert Path(f"samples/{Path().resolve().name}_plain/sample_0.wav").exists()
    page = Page(Path("samples/index.html"))
    assert len(page.sounds) == 3 and "samples\n" in page.text
    code, _, err = call(infer_wavenet, "-m", "plain", *flags)  # alone it is a mistake
    assert code == 2 and "without labels" in err


def test_equal_names_of_models_and_primes_are_numbered(call, models):
    for ending in ("wav", "flac"):
        Path("primes").mkdir(exist_ok=True)
        soundfile.write(f"primes/tone.{ending}", 0.5 * np.sin(np.arange(90) / 3), 8000)
    code, _, err = call(infer_wavenet, "-m", models / "sound", models / "sound", "-c", 1,
                        "--length", 20, "--prime", "primes", "-o", "out")
    assert code == 0, err
    assert sorted(wavs("out")) == [f"{n}_sound/sample_tone.{ending}_0.wav"
                                   for n in (0, 1) for ending in ("flac", "wav")]
    page = Page(Path("out/index.html"))
    assert {"p225, tone.wav", "p225, tone.flac"} <= set(page.text.splitlines())


def test_time_stamps_keep_sounds_apart(call, models):
    for flags in ([], ["-c", 2]):
        code, _, err = call(infer_wavenet, "-m", models / "sound", "--length", 20, "--timestamp",
                            *(flags or ["-c", 1]), "--save_every", 5)
        assert code == 0, err
    names = sorted(wavs("samples"))
    assert [re.sub(r"\d{8}-\d{6}", "T", name) for name in names] in (
        ["pred_T.wav", "pred_T_0.wav", "pred_T_1.wav"],
        ["pred_T_0.wav", "pred_T_1.wav", "pred_T.wav"])


def test_plots_have_a_bar(call, models, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, _, err = call(infer_wavenet, "-m", models / "sound", "-c", 2, "--length", 9, "--plot")
    assert code == 0 and re.search(r"plots: +\d+%.*2/2", err), err


def test_a_page_of_images(call, models):
    Path("two").mkdir()
    content = read(models / "colour", "pixelcnn")
    save("two/pixelcnn_7", {**content, "weights": {
        name: weight * 1.5 for name, weight in content["weights"].items()}})
    code, out, err = call(infer_pixelcnn, "-m", models / "colour", "two", "-l", "all", "-c", 3,
                          "-o", "out/")
    assert code == 0, err
    assert re.findall(r"^(out/\S+): 27 images of cat, dog, fox in .* images/s$", out, re.M) == [
        f"out/{models.name}_colour", "out/two_pixelcnn_7"]
    page = Page(Path("out/index.html"))
    assert [link.relative_to("out").as_posix() for link in page.links] == [
        f"{folder}/{label}.png" for label in ("cat", "dog", "fox")
        for folder in (f"{models.name}_colour", "two_pixelcnn_7")]
    assert [link.read_bytes() for link in page.links] == page.pictures
    assert "9 images in" in page.text and page.others == []
    # A picture of the folder is what the label's own would be.
    assert call(infer_pixelcnn, "-m", "two", "-l", "dog", "-c", 3, "-o", "dog.png")[0] == 0
    assert Path("dog.png").read_bytes() == Path("out/two_pixelcnn_7/dog.png").read_bytes()


def test_completions_of_several_models(call, models):
    Image.fromarray(np.tile(np.array([0, 255], np.uint8), (12, 5))).save("one.png")
    code, _, err = call(infer_pixelcnn, "-m", models / "grey", models / "run", "-c", 2, "-o",
                        "out/", "--complete", "one.png")
    assert code == 0, err
    page = Page(Path("out/index.html"))
    assert [link.name for link in page.links] == ["completed.png"] * 2
    assert len(set(page.pictures)) == 1  # the two are one model


def test_combinations_that_are_refused(call, models, run):
    sound, grey = models / "sound", models / "grey"
    Path("none").mkdir()
    Path("primes").mkdir()
    for n in (1, 2):
        soundfile.write(f"primes/{n}.wav", np.ones(9) * 0.1, 8000)
    cases = [
        (infer_wavenet, ["-m", sound, sound, "-o", "-"], "--output -: is for one model"),
        (infer_wavenet, ["-m", sound, run, "--length", 0], "--length 0: is for one model"),
        (infer_wavenet, ["-m", sound, run / "nothing"], "no such model file"),
        (infer_wavenet, ["-m", sound, "none", "--snapshots"], "none: holds no"),
        (infer_wavenet, ["-m", sound, run, "--label", "all", "-s", 3], "stacks_num 3 contradicts"),
        (infer_wavenet, ["-m", sound, "--prime", "none"], "--prime none: no recordings below it"),
        (infer_wavenet, ["-m", sound, "--prime", "primes", "--length", 0], "one recording"),
        (infer_wavenet, ["-m", sound, "--prime_seconds", 0], "--prime_seconds"),
        (infer_wavenet, ["-m", sound, "--prime", "primes", "--prime_seconds", 1e-5],
         "--prime_seconds 1e-05: is less than a sample"),
        (infer_wavenet, ["-m", sound, "--save_every", "0s"], "--save_every"),
        (infer_wavenet, ["-m", sound, "--prime", "primes", "-o", "-"], "name one file"),
        (infer_pixelcnn, ["-m", grey, models / "run"], "--output samples.jpg: is one picture"),
        (infer_pixelcnn, ["-m", grey, models / "colour", "-l", 0, "-o", "out/"],
         f"{grey}: --label 0"),
        (infer_wavenet, ["-m", run, sound, "--label", "p1"], "wavenet_500: --label p1"),
    ]
    Path("taken/index.html").mkdir(parents=True)
    cases.append((infer_wavenet, ["-m", sound, "--label", "all", "-o", "taken"],
                  "taken/index.html: can't be written"))
    torch.save({}, "broken")
    cases.append((infer_wavenet, ["-m", sound, "broken"], "broken: is no model file"))
    before = sorted(Path().rglob("*"))
    for script, args, words in cases:
        code, out, err = call(script, *args)
        assert code == 2 and out == "", (args, out, err)
        assert err.startswith("error: ") and err.count("\n") == 1 and words in err, (args, err)
    assert sorted(Path().rglob("*")) == before


def test_config_file_with_a_part_for_each_script(call, models):
    Path("study.json").write_text(json.dumps({
        "infer_wavenet": {"model": [str(models / "sound")], "count": 1, "length": 25,
                          "label": "all"},
        "infer_pixelcnn": {"model": [str(models / "grey")], "count": 2, "output": "a.png"}}))
    assert call(infer_wavenet, "--config", "study.json", "--length", 20)[0] == 0
    assert [len(samples) for samples in wavs("samples").values()] == [20, 20]
    assert call(infer_pixelcnn, "--config", "study.json")[0] == 0 and Path("a.png").exists()
    Path("study.json").write_text(json.dumps({"train_wavenet": {"epoch": 1}}))
    code, _, err = call(infer_wavenet, "--config", "study.json")
    assert code == 2 and "has parts for train_wavenet, but none for infer_wavenet" in err
