"""Commands on the pages parse, those of the README run, and links and tables are as they should."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from forks import forked
from music import make_music
from PIL import Image
from prompts import fake_alignment, write_prompts
from test_commands import write_cifar, write_mnist, write_sounds

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         ROOT / "CONTRIBUTING.md", ROOT / "configs/README.md", ROOT / "assets/README.md"]
PLACEHOLDERS = {"N": "4"}  # numbers for the reader to choose


def commands(page):
    """The commands of our scripts on a page, one per line, without pipes and redirections."""
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
            if re.search(r"ArgumentParser\(|make_parser\(", path.read_text())} <= scripts


@pytest.mark.parametrize("page, command", FOUND, ids=map(": ".join, FOUND))
def test_every_command_parses(page, command, monkeypatch):
    script, *flags = shlex.split(command)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *(PLACEHOLDERS.get(flag, flag) for flag in flags)])
    assert (ROOT / script).exists(), script
    # Not by its name: some benchmarks share it with a package.
    spec = importlib.util.spec_from_file_location("script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if script != "tests/music.py":
        module.arguments()


def test_every_link_has_a_target():
    """Links lead to files of the repository, anchors to their headings."""
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


def test_no_table_cell_of_the_readme_is_longer_than_200_characters():
    rows = re.findall(r"^\|.*\|$", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert rows
    assert max((len(cell.strip()), cell) for row in rows for cell in row.split("|"))[0] <= 200


def test_no_page_repeats_the_flags_of_a_config():
    """A training command names a file in configs/ instead of typing most of its flags."""
    for page, command in FOUND:
        if command.startswith("train_") and "--config" not in command:
            typed = {flag for flag in command.split() if flag.startswith("-")}
            assert len(typed) < 8, f"{page}: {command}"


def in_short(command):
    """The command with little to do, enough to show that it works."""
    if command.startswith("train_"):
        of_a_network = "-d 6 -n 2" if "pixelcnn" in command else "--hidden_dim 4"
        command += f" --iterations 2 {of_a_network}"
    if "voice" in command and command.startswith("train_"):
        command += " --speech_updates 1"
    return command.replace("wavenet_N", "wavenet_2").replace("--length 10s", "--length 0.1s")


def test_the_readmes_commands_run_one_after_the_other(tmp_path):
    """On data like those the README names. Benchmarks have tests of their own."""
    for name in ("assets", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_cifar(tmp_path / "data/cifar-10-batches-py")
    write_mnist(tmp_path / "data/MNIST/raw")
    write_sounds(tmp_path / "vctk/wav/p225", ["p225_001.wav", "p225_002.wav"])
    make_music(tmp_path / "music", pieces=1, seconds=2)
    write_prompts(tmp_path / "prompts")
    for number, name in enumerate(("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (50 * number, 100, 200)).save(path)
    typed = [command for page, command in FOUND
             if page == "README.md" and not command.startswith("benchmarks/")]
    assert len(typed) > 10
    for command in map(in_short, typed):
        forked(command, tmp_path, fake_alignment)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert {"drawn.png", "samples/index.html", "samples/sample_0.wav"} <= written
