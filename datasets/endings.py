"""The endings of files that are read, and of files that are reported as skipped."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from common.files import find_files


class Endings(NamedTuple):
    """Lower-case endings. read: of files to use. skipped: of files to report, but not to read."""

    read: tuple[str, ...]
    skipped: tuple[str, ...]


# `read` holds some that libsndfile can't decode: such recordings are reported one by one. `skipped`
# holds other sounds, and films with sound.
AUDIO = Endings(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au",
     ".caf", ".w64", ".m4a", ".aac", ".wma", ".amr", ".ape", ".wv"),
    (".3ga", ".3gp", ".aa", ".aax", ".ac3", ".adts", ".amb", ".asf", ".avi", ".bwf",
     ".dff", ".dsf", ".dts", ".eac3", ".f4a", ".f4v", ".flv", ".gsm", ".m4b", ".m4p",
     ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp4", ".mpa", ".mpc",
     ".mpeg", ".mpg", ".mpga", ".nist", ".ofr", ".ogm", ".ogv", ".ogx", ".ra", ".ram",
     ".rf64", ".rm", ".rmvb", ".shn", ".snd", ".sph", ".spx", ".tak", ".tta", ".voc",
     ".vox", ".wave", ".weba", ".webm", ".wmv", ".wvx"))
# Not every installation of pillow decodes the skipped ones, or none does.
IMAGES = Endings(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif",
     ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    (".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".xcf",
     ".ico", ".tga", ".pcx", ".exr", ".hdr", ".eps", ".raw", ".dng", ".cr2", ".cr3",
     ".nef", ".arw", ".orf", ".rw2", ".raf"))


class FoundFiles(NamedTuple):
    """Files below a folder by whether they are to be read: sorted Paths."""

    read: list[Path]
    skipped: list[Path]


def find_by_ending(folder: str | PathLike[str], endings: Endings) -> FoundFiles:
    """Find the files below `folder` that have one of the `endings`.

    Raises UserError if a folder can't be read.
    """
    found = FoundFiles([], [])
    for path in find_files(folder, endings.read + endings.skipped):
        is_read = path.name.lower().endswith(endings.read)
        (found.read if is_read else found.skipped).append(path)
    return found


def describe_skipped(skipped: list[Path]) -> str:
    """Describe the skipped audio files: how many, their endings, and what to do."""
    endings = sorted({path.suffix.lower()[1:] for path in skipped})
    count = len(skipped)
    return (f"{count} {'file' if count == 1 else 'files'} of kinds that are not read passed over: "
            f"{' '.join(endings)}; convert {'it' if count == 1 else 'them'} to wav or flac")
