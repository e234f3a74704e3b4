"""What the README and docs/ tell people to type exists, with every flag; the README's also runs."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from forks import forked
from music import make_music
from PIL import Image
from test_commands import write_cifar, write_sounds

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "assets").rglob("README.md"))]
PLACEHOLDERS = {"N": "4"}  # numbers that the reader is to choose


def commands(page):
    """The commands of our scripts on a page, one line each, without what a shell does with them."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    typed = re.findall(r"^ {4}(.+)", text, re.M) + re.findall(r"`(python [^`]+)`", text)
    for line in (line.replace("\n", " ") for line in typed):
        found = re.match(r"(?:\w+=\S+ )*(python|torchrun(?: --?\S+)*) (\S+\.py\b.*)", line)
        if found:
            yield re.split(r" [|&>]", found[2])[0].strip()


FOUND = [(str(page.relative_to(ROOT)), command) for page in PAGES for command in commands(page)]


def test_there_are_commands_on_the_pages():
    scripts = {command.split()[0] for _, command in FOUND}
    assert {"preprocess.py", "train_pixelcnn.py", "infer_pixelcnn.py", "train_wavenet.py",
            "infer_wavenet.py"} <= scripts
    assert {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")
            if "ArgumentParser" in path.read_text()} <= scripts


@pytest.mark.parametrize("page, command", FOUND, ids=map(": ".join, FOUND))
def test_every_command_is_one(page, command, monkeypatch):
    script, *flags = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [script, *(PLACEHOLDERS.get(flag, flag) for flag in flags)])
    assert (ROOT / script).exists(), script
    # Not by its name: some benchmarks have that of a package.
    spec = importlib.util.spec_from_file_location("script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if script != "tests/music.py":
        module.arguments()


def test_every_link_leads_somewhere():
    """To a file of the repository, and to a heading where it names one."""
    for page in PAGES:
        links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8"))
        for name, anchor in links:
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {name}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M)
                anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                           for heading in headings}
                assert anchor in anchors, f"{page.name}: {name}#{anchor}"


def in_short(command):
    """The command with as little to do as shows that it works."""
    if command.startswith("train_"):
        of_a_network = "-d 6 -n 2" if "pixelcnn" in command else "--hidden_dim 4"
        command += f" --iterations 2 {of_a_network}"
    return command.replace("wavenet_N", "wavenet_2").replace("--length 10s", "--length 0.1s")


def test_the_readmes_commands_run_one_after_the_other(tmp_path):
    """On data like those that it speaks of. Benchmarks have tests of their own."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    write_cifar(tmp_path / "data/cifar-10-batches-py")
    write_sounds(tmp_path / "vctk/wav/p225", ["p225_001.wav", "p225_002.wav"])
    make_music(tmp_path / "music", pieces=1, seconds=2)
    for number, name in enumerate(("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (50 * number, 100, 200)).save(path)
    typed = [command for page, command in FOUND
             if page == "README.md" and not command.startswith("benchmarks/")]
    assert len(typed) > 10
    for command in map(in_short, typed):
        forked(command, tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {"drawn.png", "samples/index.html", "samples/sample_0.wav"} <= written
