"""What the sampling scripts show of what they drew: plots beside sounds, and one page of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cli.requests import RequestedModel
from sampling.output import page
from sampling.output.sound_plots import plot_wav, show_wav

if TYPE_CHECKING:  # importing one kind of request would import libraries of the other kind
    from cli.image_request import ImageRequest
    from cli.sound_request import SoundRequest
    from sampling.sound_rendering import Sound

Cells = dict[str, list[page.Item]]  # what a model drew, by row of the page


def write_image_page(path: Path, drawn: Sequence[tuple[ImageRequest, Sequence[float], str]],
                     settings: Mapping[str, Any]) -> None:
    """Write the page `path`, which shows the grids of all models beside each other.

    drawn: of each model the request, the seconds of each grid, and a summary in words. settings:
    {flag: value}. Raises UserError if it can't be written.
    """
    columns = []
    for request, seconds, summary in drawn:
        cells: Cells = {
            grid.title: [page.Item(grid.path, f"{grid.count} images in {its_seconds:.2g} s",
                                   grid.path.read_bytes())]
            for grid, its_seconds in zip(request.grids, seconds, strict=True)}
        columns.append(_column(request.model, summary, cells))
    page.write_page(path, columns, settings)


def write_sound_page(path: Path, drawn: Sequence[tuple[SoundRequest, Mapping[Sound, float], str]],
                     settings: Mapping[str, Any]) -> None:
    """Write the page `path`, which shows the sounds of all models beside each other.

    drawn: of each model the request, the seconds of each sound, and a summary in words. settings:
    {flag: value}. Raises UserError if it can't be written.
    """
    columns = []
    with _bar([request for request, _, _ in drawn]) as bar:
        for request, seconds, summary in drawn:
            cells: Cells = {}
            for sound in request.sounds:
                picture, wav, length = show_wav(sound.wav, len(sound.prime) / request.rate)
                note = f"{length} in {seconds[sound]:.2g} s"
                cells.setdefault(sound.row, []).append(page.Item(sound.wav, note, picture, wav))
                bar.update()
            columns.append(_column(request.model, summary, cells))
    page.write_page(path, columns, settings)


def plot_sounds(requests: Sequence[SoundRequest]) -> None:
    """Write waveform and spectrogram beside the wav of each sound, as PNG."""
    with _bar(requests) as bar:
        for request in requests:
            for sound in request.sounds:
                plot_wav(sound.wav, f"{sound.wav.stem}, {sound.row}",
                         len(sound.prime) / request.rate)
                bar.update()


def _column(model: RequestedModel, summary: str, cells: Cells) -> page.Column:
    return page.Column(model.name, model.file, {"drawn": summary, **model.facts}, cells)


def _bar(requests):
    return tqdm(total=sum(len(request.sounds) for request in requests), desc="plots", disable=None)
