"""Run the study: each configuration with several seeds, then print the table of results.

    python benchmarks/study.py --images data --speech spoken_digits --output runs/study
    python benchmarks/study.py --images data --only cifar --seeds 1

Each run trains configs/NAME.json in a process of its own; a run of sound first prepares its corpus.
--jobs runs train at once, each on --threads threads. Call the study again after an interruption: it
skips complete runs and resumes the others. The table covers the complete runs in --output, in
Markdown, followed by their commands; --table prints it and runs nothing.

--images is the folder of the published sets, as `--data` of train_pixelcnn.py; missing files are
downloaded. --speech holds the recordings DIGIT_SPEAKER_TAKE.wav of the Free Spoken Digit Dataset,
whose takes 0 to 4 are held back; --vctk holds those of VCTK's speaker p225.

Each figure is the mean over seeds ± the standard deviation: nats per image or bits/dim on the
published test set; for sound on the validation recordings, or on the training data if nothing is
held back. Figures from a part of the published training set stand in a column of their own and do
not compare with published ones. The model sum is that of seed 0's model file.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

from benchmarks.figures import duration, number, told
from benchmarks.study_runs import RUNS, comparable, recorded_flags
from cli.arguments import positive_int
from cli.script import run_script
from common.errors import UserError
from datasets.corpus.reader import Corpus
from datasets.images.dataset import load_images
from models import model_file

ROOT = Path(__file__).resolve().parents[1]


def arguments():
    """The command line: (the flags, the selected Runs)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="data", metavar="DIR")
    parser.add_argument("--speech", default="spoken_digits", metavar="DIR")
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

def config_flag(run):
    """--config and its file, relative to the working folder."""
    return f"--config {shlex.quote(os.path.relpath(run.config))}"


def preparation(run, args):
    """The preprocess.py command line of a run of sound, as one types it."""
    source = getattr(args, run.source)
    return (f"preprocess.py {config_flag(run)} --data {shlex.quote(source)} "
            f"--output {shlex.quote(str(corpus_of(run, args)))}")


def training(run, args, seed):
    """The command line of the training script, as one types it."""
    data = corpus_of(run, args) if run.source else args.images
    return (f"train_{run.kind}.py {config_flag(run)} --data {shlex.quote(str(data))} "
            f"--seed {seed} -o {shlex.quote(str(folder_of(run, args, seed)))}")


def corpus_of(run, args):
    """The folder of its corpus."""
    return args.output / "corpora" / run.name


def folder_of(run, args, seed):
    """The folder of a run with a seed."""
    return args.output / f"{run.name}_{seed}"


# ------------------------------------------------------------------------------ running

def log_of(folder):
    """The log of the run in the folder; empty if there is none yet."""
    try:
        return json.loads((folder / "log").read_text())
    except FileNotFoundError:
        return []


def is_complete(run, folder):
    """Whether the run in the folder is complete, with its test result."""
    return any("stopped_by" in entry and run.result in entry for entry in log_of(folder)[-1:])


def refuse_others(run, folder):
    """Raise UserError if the run in the folder was begun with other flags than it has now."""
    path = folder / "flags"
    if not path.exists():
        return
    try:
        recorded = comparable(recorded_flags(run, path.read_text(encoding="utf-8")))
    except ValueError:  # cut off while it was written
        recorded = None
    if recorded != comparable(run.flags()):
        raise UserError(f"{folder}: was begun with other flags than {run.config} has, see {path}; "
                        "move the folder away (for sound also its corpus), or give another "
                        "--output")


def commit():
    """The commit of the code, marked if files have changed since."""
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                          capture_output=True).stdout.strip() or "unknown"


def carry_out(run, args, seed):
    """Train or resume the run; its output goes to a file beside its log."""
    folder = folder_of(run, args, seed)
    if is_complete(run, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "commit").exists():
        (folder / "commit").write_text(commit() + "\n")
        (folder / "flags").write_text(json.dumps(run.flags(), indent=2) + "\n")
    command = training(run, args, seed)
    print(command, file=sys.stderr)
    finish(f"{command} --gpu {args.gpu} --resume auto", args, folder / "output")


def prepare(run, args):
    """Prepare the corpus of a run of sound, unless it is there."""
    corpus = corpus_of(run, args)
    if run.source and not (corpus / "vctk_manifest.json").exists():
        corpus.mkdir(parents=True, exist_ok=True)
        command = preparation(run, args)
        print(command, file=sys.stderr)
        finish(command, args, corpus / "output")


def finish(command, args, path):
    """Run a script to its end and append its output to the file `path`."""
    script, *flags = shlex.split(command)
    with open(path, "a") as output:
        code = subprocess.run([sys.executable, ROOT / script, *flags], stdout=output, stderr=output,
                              env=os.environ | {"OMP_NUM_THREADS": str(args.threads)}).returncode
    if code:
        raise UserError(f"{command}: ended with exit code {code}, see {path}; complete runs are "
                        "kept; call the study again to continue")


# ------------------------------------------------------------------------------ the table

def data_of(run, args, dataset):
    """(Numbers of training and test items in words, whether the training set is complete).

    dataset: the name of the image set.
    """
    if run.source is None:
        images = load_images(dataset, args.images)
        train, held_back, unseen = (len(part.pixels) for part in
                                    (images.train, images.validation, images.test))
    else:
        corpus = Corpus(corpus_of(run, args))
        train, held_back = (len(part.recordings) for part in (corpus.train, corpus.validation))
        unseen = held_back
    tested = number(unseen, "other") if unseen else "the same"
    return f"{train:,} of {run.whole:,}, {tested}", train + held_back == run.whole


def table_row(run, args):
    """The run's line of the Markdown table; None if no seed is complete."""
    folders = [folder for seed in range(args.seeds)
               if is_complete(run, folder := folder_of(run, args, seed))]
    if not folders:
        return None
    first = folders[0]
    last = log_of(first)[-1]
    path = model_file.find_best_model(first, run.kind)
    model, _, described, _ = model_file.load(path, run.kind)
    size = sum(weight.numel() for weight in model.parameters())
    data, is_whole = data_of(run, args, described.get("dataset"))
    # Results are those of the best model.
    values = told([min(entry[run.result] for entry in log_of(folder) if run.result in entry)
                   for folder in folders], ".2f" if run.unit == "nats" else ".4f")
    ours = f"{values} {run.unit}"
    return "".join(f"| {cell} " for cell in (
        run.name, run.published, ours if is_whole else "", "" if is_whole else ours, data,
        number(len(folders), "seed"), f"{size:,}",
        f"{duration(last['elapsed_time'])}, {number(last['epoch'], 'epoch')}",
        (first / "commit").read_text().strip(),
        hashlib.sha256(path.read_bytes()).hexdigest()[:12])) + "|"


def main():
    """Prepare corpora, train what is incomplete, print the table of what is complete."""
    args, runs = arguments()
    for run in runs:
        for seed in range(args.seeds):
            refuse_others(run, folder_of(run, args, seed))
    if not args.table:
        for run in runs:
            prepare(run, args)
        with ThreadPoolExecutor(args.jobs) as pool:
            begun = [pool.submit(carry_out, run, args, seed)
                     for seed in range(args.seeds) for run in runs]
            try:
                for future in begun:
                    future.result()
            except KeyboardInterrupt:  # the running trainings received it too
                pool.shutdown(cancel_futures=True)
                raise
    rows = {run: row for run in runs if (row := table_row(run, args))}
    print("| run | published | ours | ours, of a part | trained on, tested on | of | parameters | "
          "trained | commit | model |\n" + 10 * "|---" + "|")
    print("\n".join(rows.values()) + "\n")
    for run in rows:
        if run.source:
            print(f"    python {preparation(run, args)}")
        print(f"    python {training(run, args, 0)}")


if __name__ == "__main__":
    run_script(main)
