"""Wrong input to the sampling scripts is refused in one line, and changes no file."""

from pathlib import Path

import torch

import infer_pixelcnn
import infer_wavenet


def test_wrong_input_is_refused_in_one_line(models, call):
    class Mischief:
        def __reduce__(self):
            return Path.touch, (Path("pwned"),)

    data = (models / "grey").read_bytes()
    Path("truncated").write_bytes(data[:len(data) // 2])
    Path("empty").touch()
    torch.save({"kind": "pixelcnn", "weights": Mischief()}, "pickled")
    Path("folder").mkdir()
    Path("text.wav").write_text("no sound")
    Path("samples/sample_1.wav").mkdir(parents=True)
    Path("samples/sample_0.wav").write_text("an earlier sound")
    grey, colour, sound = (models / name for name in ("grey", "colour", "sound"))
    cases = [
        (infer_pixelcnn, ["-m", "missing"], "missing"),
        (infer_pixelcnn, ["-m", "truncated"], "truncated"),
        (infer_pixelcnn, ["-m", "empty"], "empty"),
        (infer_pixelcnn, ["-m", "pickled"], "pickled"),
        (infer_pixelcnn, ["-m", "folder"], "folder"),
        (infer_pixelcnn, ["-m", sound], "infer_wavenet.py"),
        (infer_pixelcnn, ["-m", grey, "-d", 5], "hidden_dim 5 contradicts"),
        (infer_pixelcnn, ["-m", grey, "-n", 3], "has blocks_num 2"),
        (infer_pixelcnn, ["-m", grey, "--levels", 256], "has levels 4"),
        (infer_pixelcnn, ["-m", grey, "-l", 0], "--label 0"),
        (infer_pixelcnn, ["-m", grey, "-l", "all"], "--label all"),
        (infer_pixelcnn, ["-m", colour, "-l", 3], "--label 3"),
        (infer_pixelcnn, ["-m", colour, "-l", "cow"], "2 fox"),
        (infer_pixelcnn, ["-m", grey, "-o", "a.tiff"], "--output a.tiff"),
        (infer_pixelcnn, ["-m", grey, "-o", "empty/a.png"], "--output empty"),
        (infer_pixelcnn, ["-m", grey, "-c", 5000], "--count"),
        (infer_pixelcnn, ["-m", grey, "--complete", "text.wav"], "--complete text.wav"),
        (infer_wavenet, ["-m", grey], "infer_pixelcnn.py"),
        (infer_wavenet, ["-m", "truncated"], "truncated"),
        (infer_wavenet, ["-m", sound, "-l", 4], "layers_num 4 contradicts"),
        (infer_wavenet, ["-m", sound, "--rate", 16000], "has rate 8000"),
        (infer_wavenet, ["-m", sound, "--label", 2], "--label 2"),
        (infer_wavenet, ["-m", sound, "-o", "empty"], "--output empty"),
        (infer_wavenet, ["-m", sound, "-c", 2], "samples/sample_1.wav: can't be written"),
        (infer_wavenet, ["-m", sound, "--prime", "text.wav"], "text.wav"),
        (infer_wavenet, ["-m", sound, "--prime", "missing.wav"], "missing.wav"),
        (infer_wavenet, ["-m", sound, "--length", "0.00001s"], "less than a sample at 8000 Hz"),
        (infer_wavenet, ["-m", sound, "--length", "40000000s"], "--length"),
        (infer_wavenet, ["-m", sound, "--length", 0, "-c", 65], "65 sounds"),
        (infer_wavenet, ["-m", sound, "--length", 0, "-c", 33, "--label", "all"], "66 sounds"),
        (infer_wavenet, ["-m", sound, "-o", "-", "-c", 2], "--count 2"),
        (infer_wavenet, ["-m", sound, "-o", "-", "--label", "all"], "--label all"),
        (infer_wavenet, ["-m", sound, "-o", "-", "--plot"], "--plot"),
    ]
    before = sorted(Path().rglob("*"))
    for script, args, words in cases:
        code, out, err = call(script, *args)
        assert code == 2 and out == "", (args, err)
        assert err.startswith("error: ") and err.count("\n") == 1 and words in err, (args, err)
    assert sorted(Path().rglob("*")) == before
    assert Path("samples/sample_0.wav").read_text() == "an earlier sound"

    for script, args in [(infer_pixelcnn, []), (infer_pixelcnn, ["-m", grey, "-c", 0]),
                         (infer_pixelcnn, ["-m", grey, "--temperature", -1]),
                         (infer_wavenet, ["-m", sound, "--length", "x"]),
                         (infer_wavenet, ["-m", sound, "--length", -1]),
                         (infer_wavenet, ["-m", sound, "--length", "0s"]),
                         (infer_wavenet, ["-m", sound, "--length", "nans"]),
                         (infer_wavenet, ["-m", sound, "--length", "infs"]),
                         (infer_wavenet, ["-m", sound, "--length", 0.5]),
                         (infer_wavenet, ["-m", sound, "--top_p", 0]),
                         (infer_wavenet, ["-m", sound, "--top_p", 1.1]),
                         (infer_wavenet, ["-m", sound, "--precision", "fp16"])]:
        code, out, err = call(script, *args)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
