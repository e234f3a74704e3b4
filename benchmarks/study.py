"""Run the study: each configuration with several seeds, then print the table of results.

    python benchmarks/study.py --images data --speech spoken_digits --output runs/study
    python benchmarks/study.py --images data --only cifar --seeds 1

Each run trains configs/NAME.json in a process of its own; a run of sound first prepares its corpus.
--jobs runs train at once, each on --threads threads. Call the study again after an interruption: it
skips complete runs and resumes the others. The table covers the complete runs in --output, in
Markdown, followed by their commands; --table prints it and runs nothing.

--images is the folder of the published sets, as `--data` of train_pixelcnn.py; missing files are
downloaded. --speech holds the recordings DIGIT_SPEAKER_TAKE.wav of the Free Spoken Digit Dataset,
whose takes 0 to 4 are held back; --prompts those of Asterisk (docs/speech.md), with transcripts;
--vctk holds the recordings of VCTK's speaker p225.

Each figure is the mean over seeds ± the standard deviation: nats per image or bits/dim on the
published test set; for sound on the validation recordings, or on the training data if nothing is
held back. Figures from a part of the published training set don't compare with published ones; the
table says "a part". Times are those of seed 0.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder

from benchmarks.formatting import format_count, format_duration, format_mean
from benchmarks.study_runs import RUNS, Run
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.corpus.reader import Corpus
from datasets.images.dataset import load_images
from models import model_file

ROOT = Path(__file__).resolve().parents[1]


def arguments() -> tuple[argparse.Namespace, list[Run]]:
    """Parse the command line: (the flags, the selected runs)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="data", metavar="DIR")
    parser.add_argument("--speech", default="spoken_digits", metavar="DIR")
    parser.add_argument("--prompts", default="prompts", metavar="DIR")
    parser.add_argument("--vctk", default="assets/vctk/wav/p225", metavar="DIR")
    parser.add_argument("--tone", default="assets/tone", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("runs/study"), metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these runs")
    parser.add_argument("--seeds", type=positive_int, default=3, metavar="N", help="0 to N - 1")
    parser.add_argument("--jobs", type=positive_int, default=2, help="runs at once")
    parser.add_argument("--threads", type=positive_int, default=1, help="threads of each run")
    parser.add_argument("--gpu", type=int, default=-1, metavar="N", help="GPU of all runs")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    names = [run.name for run in RUNS]
    for name in args.only or ():
        if name not in names:
            raise UserError(f"--only {name}: no such run; give some of {', '.join(names)}")
    return args, [run for run in RUNS if run.name in (args.only or names)]


# ------------------------------------------------------------------------------ the commands

def config_flag(run: Run) -> str:
    """--config and its file, relative to the working folder."""
    return f"--config {shlex.quote(os.path.relpath(run.config))}"


def preparation_command(run: Run, args: argparse.Namespace, source: str) -> str:
    """The preprocess.py command of a run of sound, as one types it. source: see `Run`."""
    recordings = getattr(args, source)
    return (f"preprocess.py {config_flag(run)} --data {shlex.quote(recordings)} "
            f"--output {shlex.quote(str(corpus_folder(run, args)))}")


def training_command(run: Run, args: argparse.Namespace, seed: int) -> str:
    """The command of the training script, as one types it."""
    data = corpus_folder(run, args) if run.source else args.images
    return (f"train_{run.kind}.py {config_flag(run)} --data {shlex.quote(str(data))} "
            f"--seed {seed} -o {shlex.quote(str(run_folder(run, args, seed)))}")


def corpus_folder(run: Run, args: argparse.Namespace) -> Path:
    """The folder of the run's corpus."""
    return args.output / "corpora" / run.name


def run_folder(run: Run, args: argparse.Namespace, seed: int) -> Path:
    """The folder of a run with a seed."""
    return args.output / f"{run.name}_{seed}"


# ------------------------------------------------------------------------------ running

def read_log(folder: Path) -> list[dict]:
    """Read the log of the run in the folder; empty if there is none yet."""
    try:
        return json.loads((folder / "log").read_text())
    except FileNotFoundError:
        return []


def is_complete(run: Run, folder: Path) -> bool:
    """Whether the run in the folder is complete, with its test result."""
    return any("stopped_by" in entry and run.result in entry for entry in read_log(folder)[-1:])


def check_flags(run: Run, folder: Path) -> None:
    """Raise UserError if the run in the folder was started with other flags than it has now."""
    path = folder / "flags"
    if not path.exists():
        return
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # cut off while it was written
        recorded = None
    if recorded != run.flags():
        raise UserError(f"{folder}: was started with other flags than {run.config} has, see "
                        f"{path}; move the folder away (for sound also its corpus), or give "
                        "another --output")


def current_commit() -> str:
    """The commit of the code, marked "-dirty" if files have changed since."""
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                          capture_output=True).stdout.strip() or "unknown"


def train(run: Run, args: argparse.Namespace, seed: int) -> None:
    """Train or resume the run; write its output next to its log."""
    folder = run_folder(run, args, seed)
    if is_complete(run, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "commit").exists():
        (folder / "commit").write_text(current_commit() + "\n")
        (folder / "flags").write_text(json.dumps(run.flags(), indent=2) + "\n")
    command = training_command(run, args, seed)
    print(command, file=sys.stderr)
    run_to_end(f"{command} --gpu {args.gpu} --resume auto", args, folder / "output")


def prepare(run: Run, args: argparse.Namespace) -> None:
    """Prepare the corpus of a run of sound, unless it exists."""
    corpus = corpus_folder(run, args)
    if run.source and not (corpus / "vctk_manifest.json").exists():
        corpus.mkdir(parents=True, exist_ok=True)
        command = preparation_command(run, args, run.source)
        print(command, file=sys.stderr)
        run_to_end(command, args, corpus / "output")


def run_to_end(command: str, args: argparse.Namespace, path: Path) -> None:
    """Run a script to its end and append its output to the file `path`."""
    script, *flags = shlex.split(command)
    with open(path, "a") as output:
        code = subprocess.run([sys.executable, ROOT / script, *flags], stdout=output, stderr=output,
                              env=os.environ | {"OMP_NUM_THREADS": str(args.threads)}).returncode
    if code:
        raise UserError(f"{command}: ended with exit code {code}, see {path}; complete runs are "
                        "kept; call the study again to continue")


# ------------------------------------------------------------------------------ the table

def describe_data(run: Run, args: argparse.Namespace, dataset: str) -> str:
    """The numbers of training and test items.

    dataset: the name of the image set.
    """
    if run.source is None:
        images = load_images(dataset, args.images)
        training, held_back, unseen = (
            len(split.pixels) if split else 0
            for split in (images.train, images.validation, images.test))
    else:
        corpus = Corpus(corpus_folder(run, args))
        training, held_back = (len(split.recordings)
                               for split in (corpus.train, corpus.validation))
        unseen = held_back
    total = training + held_back
    part = "" if total == run.published_items else f"a part, {total:,} of {run.published_items:,}: "
    return f"{part}{training:,}; {f'{unseen:,}' if unseen else 'the same'}"


def table_row(run: Run, args: argparse.Namespace) -> str | None:
    """The run's line of the Markdown table; None if no seed is complete."""
    folders = [folder for seed in range(args.seeds)
               if is_complete(run, folder := run_folder(run, args, seed))]
    if not folders:
        return None
    last = read_log(folders[0])[-1]
    path = model_file.find_best_model(folders[0], run.kind)
    model, _, described, _ = model_file.load(path, run.kind)
    size = sum(weight.numel() for weight in model.parameters())
    # The best model's results.
    results = [min(entry[run.result] for entry in read_log(folder) if run.result in entry)
               for folder in folders]
    values = format_mean(results, ".2f" if run.unit == "nats" else ".4f")
    return "".join(f"| {cell} " for cell in (
        f"[{run.name}](../configs/{run.config.name})", run.published,
        f"{values} {run.unit}, {format_count(len(folders), 'seed')}", f"{size:,}",
        f"{format_duration(last['elapsed_time'])}, {format_count(last['epoch'], 'epoch')}",
        describe_data(run, args, described.get("dataset", "")))) + "|"


def main() -> None:
    """Prepare corpora, train incomplete runs, print the table of complete runs."""
    args, runs = arguments()
    for run in runs:
        for seed in range(args.seeds):
            check_flags(run, run_folder(run, args, seed))
    if not args.table:
        for run in runs:
            prepare(run, args)
        with ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(train, run, args, seed)
                       for seed in range(args.seeds) for run in runs]
            try:
                for future in futures:
                    future.result()
            except KeyboardInterrupt:  # the running trainings received it too
                pool.shutdown(cancel_futures=True)
                raise
    rows = {run: row for run in runs if (row := table_row(run, args))}
    print("| run | published | ours | parameters | training | trained on; tested on |\n"
          + 6 * "|---" + "|")
    print("\n".join(rows.values()) + "\n")
    for run in rows:
        if run.source:
            print(f"    python {preparation_command(run, args, run.source)}")
        print(f"    python {training_command(run, args, 0)}")


if __name__ == "__main__":
    run_script(main)
