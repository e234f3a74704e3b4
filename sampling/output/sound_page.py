"""What infer_wavenet.py drew, for people to look at: plots beside the sounds, and a page."""

from tqdm import tqdm

from sampling.output import page
from sampling.output.sound_plots import for_page, plot_wav


def plot(sessions):
    """Waveform and spectrogram beside each sound of the sessions, of `cli.sound_request`."""
    with _bar(sessions) as bar:
        for session in sessions:
            for take in session.takes:
                plot_wav(take.path, f"{take.path.stem}, {take.row}",
                         len(take.given.codes) / session.rate)
                bar.update()


def write(path, done, settings):
    """Write the page `path`, which shows the sounds beside each other.

    done: [(session, {path: seconds} of its takes, all in words), …]. settings: {flag: value}.
    """
    columns = []
    with _bar([session for session, _, _ in done]) as bar:
        for session, seconds, said in done:
            cells = {}
            for take in session.takes:
                picture, wav, length = for_page(take.path, len(take.given.codes) / session.rate)
                note = f"{length} in {seconds[take.path]:.2g} s"
                cells.setdefault(take.row, []).append(page.Item(take.path, note, picture, wav))
                bar.update()
            columns.append(page.Column(session.name, session.file,
                                       {"drawn": said, **session.facts}, cells))
    page.write(path, columns, settings)


def _bar(sessions):
    """How many of the sounds are plotted."""
    return tqdm(total=sum(len(session.takes) for session in sessions), desc="plots", disable=None)
