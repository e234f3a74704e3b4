"""Odd and malicious pictures are read, or left out with a reason."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from cli.originals import read_originals
from common.errors import UserError
from datasets.images import picture
from datasets.images.dataset import load_images
from datasets.images.picture import Budget, UnusablePictureError, read_picture

ROOT = Path(__file__).resolve().parents[1]
GENERATOR = np.random.default_rng(0)
SMOOTH = np.cumsum(GENERATOR.integers(-2, 3, (300, 400, 3)), 0).astype(np.uint8)


HANG_SECONDS = 30
pytestmark = pytest.mark.usefixtures("no_hanging")


def refused(path):
    """Return why the picture at `path` is refused: the same in training and for --complete."""
    with pytest.raises(UnusablePictureError) as error:
        read_picture(path, 8, 8)
    with pytest.raises(UserError, match="--complete ") as line:
        read_originals([path], 3, 8, 8, 256)
    assert f"{path}: {error.value}; " in str(line.value) and "\n" not in str(line.value)
    return str(error.value)


def png_that_claims(width, height, *chunks):
    """The bytes of a PNG that claims that size and holds almost nothing."""
    def chunk(kind, content):
        return (struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content)))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + b"".join(chunk(*one) for one in chunks)
            + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


# ------------------------------------------------------------------------------ what is no file


def test_irregular_files_are_left_out_with_their_kind(tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "link.png").symlink_to("good.png")
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    (tmp_path / "c.png").symlink_to("nowhere")
    (tmp_path / "d.png").symlink_to("a.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "e.png"))
        assert len(load_images(str(tmp_path), validation=0).train.pixels) == 2
    _, *told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"left out: {tmp_path}/") for line in told] == [
        "a.png: is a named pipe", "b.png: is a device", "c.png: no such file or directory",
        "d.png: is a named pipe", "e.png: is a socket"]
    assert refused(tmp_path / "a.png") == "is a named pipe"
    assert refused(tmp_path) == "is a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_permission_denied(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert refused(tmp_path / "a.png") == "permission denied"


# ------------------------------------------------------------------------------ silence


def test_pillow_and_its_libraries_add_nothing_to_our_lines(tmp_path, capfd):
    """Python's warnings, its logging, and what libtiff writes to the terminal itself."""
    Image.new("L", (32, 32)).save(tmp_path / "good.png")
    Image.fromarray(SMOOTH).save(tmp_path / "a.tiff", compression="tiff_deflate")
    content = bytearray((tmp_path / "a.tiff").read_bytes())
    content[5000:5100] = bytes(100)
    (tmp_path / "a.tiff").write_bytes(content)
    Image.new("L", (32, 32)).save(tmp_path / "exif.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12")
    frames = png_that_claims(8, 8, (b"acTL", bytes(8)))
    (tmp_path / "frames.png").write_bytes(frames)
    load_images(str(tmp_path), validation=0)
    told = capfd.readouterr().err.splitlines()
    assert all(line.startswith(("warning: ", "left out: ")) for line in told), told
    assert any("a.tiff" in line for line in told)
    with pytest.raises(UserError):
        read_originals([tmp_path / "a.tiff"], 1, 8, 8, 4)
    assert capfd.readouterr().err == ""


def test_our_own_messages_appear_while_a_library_is_silent():
    code = ("import os, sys\nfrom common.quiet import silent_library\n"
            "with silent_library('PIL') as stderr:\n"
            "    os.write(2, b'from C\\n'); print('ours', file=sys.stderr)\n"
            "    stderr.write('bar\\n')\n"
            "os.write(2, b'after\\n'); print('end', file=sys.stderr)\n")
    for closed in ("", "2>&-"):
        done = subprocess.run(f'"{sys.executable}" - {closed}', shell=True, input=code, text=True,
                              capture_output=True, cwd=ROOT)
        if not closed:
            assert done.stderr.splitlines() == ["ours", "bar", "after", "end"]


# ------------------------------------------------------------------------------ memory


def test_ordinary_large_pictures_keep_every_byte(tmp_path):
    """Converting in strips gives the same bytes as pillow does at once."""
    photo = Image.fromarray(SMOOTH).resize((4000, 3000), Image.Resampling.NEAREST)
    alpha = Image.fromarray(SMOOTH[..., 0]).resize((2500, 2000), Image.Resampling.NEAREST)
    modes = {"photo.jpg": photo, "alpha.png": photo.resize(alpha.size), "l.png": alpha}
    modes["alpha.png"].putalpha(alpha)
    for name, image in modes.items():
        image.save(tmp_path / name, compress_level=1)
        with Image.open(tmp_path / name) as whole:
            if whole.mode == "RGBA":
                white = Image.new("RGBA", whole.size, "white")
                whole = Image.alpha_composite(white, whole)
            wanted = np.asarray(ImageOps.fit(whole.convert("RGB"), (9, 7),
                                             Image.Resampling.LANCZOS)).transpose(2, 0, 1)
        found = read_picture(tmp_path / name, 7, 9)
        assert (found == wanted).all() and len(found) == (1 if name == "l.png" else 3)


@pytest.mark.parametrize("name, mode", [("a.jpg", "RGB"), ("a.png", "RGB"), ("a.png", "RGBA"),
                                        ("a.png", "P"), ("a.gif", "P"), ("a.tiff", "CMYK"),
                                        ("a.png", "1"), ("a.png", "I;16")])
def test_a_very_large_picture_is_reduced_before_it_is_converted(tmp_path, monkeypatch, name, mode):
    image = Image.fromarray(SMOOTH[..., 0].astype(np.uint16) * 256) if mode == "I;16" else (
        Image.fromarray(SMOOTH).convert(mode))
    exif = Image.Exif()
    exif[0x112] = 6
    image.save(tmp_path / name, **({} if mode in ("P", "CMYK") else {"exif": exif}))
    ordinary = read_picture(tmp_path / name, 12, 16).astype(int)
    monkeypatch.setattr(picture, "LARGE", 10_000)
    monkeypatch.setattr(picture, "STRIP", 5_000)
    reduced = read_picture(tmp_path / name, 12, 16).astype(int)
    assert reduced.shape == ordinary.shape and abs(reduced - ordinary).mean() < 8


def test_a_huge_picture_takes_little_memory(tmp_path):
    """13,000 x 13,000 pixels in a file of 165 KB become an image of 16 pixels."""
    Image.new("P", (13_000, 13_000), 3).save(tmp_path / "a.png")
    code = ("import resource, sys\nfrom datasets.images.picture import read_picture\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "read_picture(sys.argv[1], 16, 16)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], cwd=ROOT, text=True,
                          capture_output=True, check=True)
    assert int(done.stdout) < 400_000  # kilobytes: the picture itself has 169,000


def test_too_many_pixels(tmp_path, monkeypatch):
    for size in ((100_000, 100_000), (2 ** 31 - 1, 1), (13_378, 13_378)):
        (tmp_path / "a.png").write_bytes(png_that_claims(*size))
        assert refused(tmp_path / "a.png") == "too many pixels"
    Image.new("L", (100, 100)).save(tmp_path / "a.webp")
    monkeypatch.setattr(picture, "MOST_MEMORY", 100_000)  # as its decoder takes more than others
    assert refused(tmp_path / "a.webp") == "too many pixels"


def test_text_that_unpacks_to_much_more(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * 10_000_000, zip=True)
    Image.new("L", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert "too large" in refused(tmp_path / "a.png")
    bomb = zlib.compress(bytes(50_000_000))
    (tmp_path / "a.png").write_bytes(png_that_claims(8, 8, (b"iCCP", b"x\0\0" + bomb)))
    assert "too large" in refused(tmp_path / "a.png")


def test_a_jpeg_with_too_many_scans_is_not_decoded(tmp_path):
    """Scans take few bytes each, but each goes over the whole picture."""
    Image.new("L", (2000, 2000)).save(tmp_path / "a.jpg", progressive=True)
    read_picture(tmp_path / "a.jpg", 8, 8)
    content = (tmp_path / "a.jpg").read_bytes()
    scan = content[content.rindex(b"\xff\xda"):-2]
    (tmp_path / "a.jpg").write_bytes(content[:-2] + 50_000 * scan + content[-2:])
    assert refused(tmp_path / "a.jpg") == "too many scans"


def test_a_whole_read_is_limited(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.webp")
    with open(tmp_path / "a.webp", "rb+") as file:
        file.truncate(2 ** 36)  # takes no room on the disk
    assert "in one piece" in refused(tmp_path / "a.webp")


def test_threads_wait_for_each_others_memory():
    budget, at_once, most = Budget(10), [], []

    def use(amount):
        with budget.taken(amount):
            at_once.append(amount)
            most.append(sum(at_once))
            time.sleep(0.002)
            at_once.remove(amount)

    threads = [threading.Thread(target=use, args=(1 + number % 10,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40 and max(most) <= 10 and budget.left == 10


# ------------------------------------------------------------------------------ odd pictures


def odd(folder):
    """Return {name: an odd picture that is read nonetheless}."""
    rgb = Image.fromarray(SMOOTH[:40, :50])
    turned = Image.Exif()
    for name, image, options in (
            ("animated.gif", rgb.convert("P"), {"save_all": True, "append_images": [rgb]}),
            ("animated.png", rgb, {"save_all": True, "append_images": [rgb]}),
            ("pages.tiff", rgb, {"save_all": True, "append_images": [rgb]}),
            ("cmyk.jpg", rgb.convert("CMYK"), {}), ("cmyk.tiff", rgb.convert("CMYK"), {}),
            ("one_bit.png", rgb.convert("1"), {}), ("lab.tiff", rgb.convert("LAB"), {}),
            ("profile.png", rgb, {"icc_profile": b"garbage" * 100}),
            ("profile.jpg", rgb, {"icc_profile": b"garbage"}),
            ("exif.jpg", rgb, {"exif": b"Exif\0\0garbage"}),
            ("line.png", Image.new("RGB", (1, 100_000)), {}),
            ("row.png", Image.new("RGB", (100_000, 1)), {})):
        image.save(folder / name, **options)
    rgb.save(folder / "two.jpg", format="MPO", save_all=True, append_images=[rgb])
    for orientation in (0, 9, 65535):
        turned[0x112] = orientation
        rgb.save(folder / f"orientation_{orientation}.jpg", exif=turned)


def test_odd_pictures_are_read(tmp_path, capfd):
    odd(tmp_path)
    images = load_images(str(tmp_path), 8, 8, validation=0)
    assert capfd.readouterr().err == ""
    assert len(images.train.pixels) == len(list(tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        assert read_originals([path], 3, 8, 8, 256).shape == (1, 3, 8, 8)


@pytest.mark.filterwarnings("ignore")  # of pillow: here each is read on its own
def test_truncated_pictures(tmp_path):
    odd(tmp_path)
    reasons = set()
    for path in [*tmp_path.iterdir()]:
        content = path.read_bytes()
        for part in (0, 0.01, 0.3, 0.6):
            path.write_bytes(content[:int(len(content) * part)])
            try:
                read_picture(path, 8, 8)  # the first of several may be whole
            except UnusablePictureError as error:
                reasons.add(str(error).partition(" (")[0])
    assert reasons >= {"is empty", "truncated", "not a picture"}


def test_no_pixels(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 0 0 255\n")
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack(
        "<IIIIiiHHIIIIII", 54, 0, 54, 40, 0, 5, 1, 24, 0, 0, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(png_that_claims(0, 5))
    for name in ("a.ppm", "a.bmp", "a.png"):
        assert refused(tmp_path / name)


def test_a_file_is_not_handed_to_another_program(tmp_path):
    """Pillow does this with PostScript, whatever the file's name."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n")
    assert "not a picture" in refused(tmp_path / "a.png")


# ------------------------------------------------------------------------------ folders


def test_skipped_kinds_of_pictures_are_reported(tmp_path, capsys):
    for name in ("a.heic", "b.HEIC", "c.svg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="no pictures below it.* there are 2 .heic, 1 .svg; conv"):
        load_images(str(tmp_path))
    for ending, kind in (("jfif", "JPEG"), ("apng", "PNG"), ("jpe", "JPEG"), ("pbm", "PPM")):
        Image.new("1", (9, 9)).save(tmp_path / f"x.{ending}", kind)
    assert len(load_images(str(tmp_path), validation=0).train.pixels) == 4
    line, = capsys.readouterr().err.splitlines()
    assert "passed over are 2 .heic, 1 .svg" in line and "notes" not in line


def test_two_folders_that_give_one_class_are_reported(tmp_path, capsys):
    folder = tmp_path / "cats"
    for place in ("a.png", "cats/b.png", "dogs/c.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(folder / place)
    assert load_images(str(folder), validation=0).label_names == ["cats", "dogs"]
    line, = capsys.readouterr().err.splitlines()
    assert f"{folder} itself and 'cats' are one class, cats" in line
