"""The study: all its runs, with several seeds each, and the table of what they came to.

    python benchmarks/study.py --images data --speech spoken_digits --output runs/study
    python benchmarks/study.py --images data --only cifar --seeds 1

Each run is one command of train_pixelcnn.py or train_wavenet.py, for sound after one of
preprocess.py, in a process of its own; --jobs of them at once, each on --threads. Interrupted or
called again it goes on where it was: what is complete is not run again. The table is of all that is
complete in --output, in Markdown, the commands below it; --table prints it and runs nothing.

--images holds the published sets' files, as `--data` of train_pixelcnn.py does; what is missing is
downloaded. --speech holds the recordings DIGIT_SPEAKER_TAKE.wav of the Free Spoken Digit Dataset,
of which takes 0 to 4 are held back; --vctk those of VCTK's speaker p225.

A number is the mean over the seeds ± its standard deviation: nats an image or bits/dim on the
published test set, or on what was held back of recordings; on what was trained on if nothing was.
If the files here are a part of the published ones it stands in a column of its own, not to be
compared with what was published. Seed 0's is the model whose sum is told.
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
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, with its cuda.py

from benchmarks.figures import duration, number, told
from datasets.corpus import Corpus
from datasets.errors import UserError
from datasets.images import load_images
from training import snapshot
from training.arguments import positive_int
from training.script import run_script

ROOT = Path(__file__).resolve().parents[1]
LEARNING = "--schedule cosine --weight_decay 0"
IMAGES = f"--out_hidden_dim 32 {LEARNING} --precision bf16"
NARROW = f"-d 32 --learning_rate 6e-3 {IMAGES}"
WIDE = f"--hidden_dim 64 --out_hidden_dim 64 --learning_rate 2e-3 {LEARNING} --precision bf16"
HELD_BACK = r"--validation '_[0-4]\.wav$'"


class Run(NamedTuple):
    """A row of the table.

    name: of its folder. flags: of the training script. data: how preprocess.py makes the corpus,
    its source by the name of our flag; None for images. unit: what is told, "nats" or "bits/dim".
    published: what the papers have. whole: how many images or recordings to train on, some of them
    held back, the published set has.
    """

    name: str
    flags: str
    data: str | None = None
    unit: str = "bits/dim"
    published: str = ""
    whole: int = 60_000

    @property
    def kind(self):
        """Of network."""
        return "pixelcnn" if self.data is None else "wavenet"

    @property
    def result(self):
        """What the log calls the likelihood: of the training itself if nothing is held back."""
        if self.kind == "pixelcnn":
            return f"test/main/{self.unit}"
        return "validation/" * ("--validation" in self.data) + f"main/{self.unit}"


RUNS = (
    Run("digits_binarised", f"--binarize sampled --condition none -n 12 {NARROW} -e 6",
        unit="nats", published="PixelCNN 81.30, Row LSTM 80.54, Diagonal BiLSTM 79.20 nats"),
    Run("digits_4_levels",
        f"--levels 4 -d 48 -n 16 --dropout 0.1 --learning_rate 4e-3 {IMAGES} -e 10", unit="nats"),
    Run("digits_4_levels_5_blocks", f"--levels 4 -n 5 {NARROW} -e 5", unit="nats"),
    Run("digits_8_levels", f"--levels 8 -n 5 {NARROW} -e 5"),
    Run("digits_256_levels_short", f"--levels 256 -n 8 {NARROW} -e 1"),
    Run("digits_256_levels", f"--levels 256 -n 8 {NARROW} -e 6"),
    Run("fashion", f"--dataset fashion-mnist --levels 256 -n 8 {NARROW} -e 2"),
    Run("cifar", f"--dataset cifar --levels 256 -n 8 {NARROW} -e 40",
        published="PixelCNN 3.14, Gated PixelCNN 3.03, PixelCNN++ 2.92 bits/dim", whole=50_000),
    Run("tone", f"-b 2 --hidden_dim 16 --out_hidden_dim 16 --learning_rate 3e-3 {LEARNING} -e 200",
        data="tone --stacks_num 1 --layers_num 8", whole=1),
    Run("p225", f"-b 1 --learning_rate 2e-3 {LEARNING} --precision bf16 --dropout 0.1 -e 600",
        data="vctk --stacks_num 4 --target_length 4000 --silence_threshold 0.01", whole=231),
    Run("spoken_digits", f"-b 2 {WIDE} --ema 0.999 -e 14",
        data=rf"speech --labels '(\d_[a-z]+)_\d+\.wav$' {HELD_BACK} --silence_threshold 0.01 "
             "--stacks_num 2 --layers_num 11 --target_length 6000", whole=3_000),
    Run("spoken_digits_from_features", f"-b 2 {WIDE} -e 10",
        data=f"speech --labels none {HELD_BACK} --stacks_num 2 --layers_num 9 --features mel",
        whole=3_000),
)


def arguments():
    """The command line: (the flags, the Runs asked for)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="data", metavar="DIR")
    parser.add_argument("--speech", default="spoken_digits", metavar="DIR")
    parser.add_argument("--vctk", default="assets/vctk/wav/p225", metavar="DIR")
    parser.add_argument("--tone", default="assets/tone", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("runs/study"), metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these runs")
    parser.add_argument("--seeds", type=positive_int, default=3, metavar="N", help="0 to N - 1")
    parser.add_argument("--jobs", type=positive_int, default=2, help="runs at once")
    parser.add_argument("--threads", type=positive_int, default=1, help="of each run")
    parser.add_argument("--gpu", type=int, default=-1, metavar="N", help="of all runs")
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    names = [run.name for run in RUNS]
    for name in args.only or ():
        if name not in names:
            raise UserError(f"--only {name}: no such run; give some of {', '.join(names)}")
    return args, [run for run in RUNS if run.name in (args.only or names)]


# ------------------------------------------------------------------------------ the commands

def preparation(run, args):
    """The preprocess.py command line of a run of sound, as one types it."""
    source, _, flags = run.data.partition(" ")
    return (f"preprocess.py --data {shlex.quote(getattr(args, source))} {flags} "
            f"--output {shlex.quote(str(corpus_of(run, args)))}")


def training(run, args, seed):
    """The command line of the training script, as one types it."""
    data = args.images if run.data is None else corpus_of(run, args)
    return (f"train_{run.kind}.py --data {shlex.quote(str(data))} {run.flags} --seed {seed} "
            f"-o {shlex.quote(str(folder_of(run, args, seed)))}")


def corpus_of(run, args):
    """The folder of its corpus."""
    return args.output / "corpora" / run.name


def folder_of(run, args, seed):
    """The folder of a run with a seed."""
    return args.output / f"{run.name}_{seed}"


# ------------------------------------------------------------------------------ running

def log_of(folder):
    """The log of the run in the folder; empty if there is none."""
    try:
        return json.loads((folder / "log").read_text())
    except FileNotFoundError:
        return []


def is_complete(run, folder):
    """Whether the run in the folder has come to its end, its test included."""
    return any("stopped_by" in entry and run.result in entry for entry in log_of(folder)[-1:])


def flags_of(run):
    """All that its outcome depends on besides the seed, as it is kept beside it."""
    return f"{run.data or ''}\n{run.flags}\n"


def refuse_others(run, folder):
    """Raise UserError if what is in the folder was begun by another command than it is now."""
    kept = folder / "flags"
    if kept.exists() and kept.read_text() != flags_of(run):
        raise UserError(f"{folder}: was begun by another command, see {kept}; take the folder "
                        "away (of sound also its corpus), or name another --output")


def commit():
    """That of the code, marked if it has been changed since."""
    return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                          capture_output=True).stdout.strip() or "unknown"


def carry_out(run, args, seed):
    """Train it, from its last snapshot if it was begun; its output is in a file beside its log."""
    folder = folder_of(run, args, seed)
    if is_complete(run, folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "commit").exists():
        (folder / "commit").write_text(commit() + "\n")
        (folder / "flags").write_text(flags_of(run))
    command = training(run, args, seed)
    print(command, file=sys.stderr)
    finish(f"{command} --gpu {args.gpu} --resume auto", args, folder / "output")


def prepare(run, args):
    """Make its corpus, if it needs one that isn't there."""
    corpus = corpus_of(run, args)
    if run.data and not (corpus / "vctk_manifest.json").exists():
        corpus.mkdir(parents=True, exist_ok=True)
        command = preparation(run, args)
        print(command, file=sys.stderr)
        finish(command, args, corpus / "output")


def finish(command, args, path):
    """Run a script to its end; what it says is added to the file `path`."""
    script, *flags = shlex.split(command)
    with open(path, "a") as output:
        code = subprocess.run([sys.executable, ROOT / script, *flags], stdout=output, stderr=output,
                              env=os.environ | {"OMP_NUM_THREADS": str(args.threads)}).returncode
    if code:
        raise UserError(f"{command}: ended with exit code {code}, see {path}; what is done stays, "
                        "and the study goes on from there when it is called again")


# ------------------------------------------------------------------------------ the table

def data_of(run, args, dataset):
    """(On how many items it was trained and tested, in words; whether they are the whole set).

    dataset: the name of the images.
    """
    if run.data is None:
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
    """A line of Markdown on what is complete of a run, None if nothing is."""
    folders = [folder for seed in range(args.seeds)
               if is_complete(run, folder := folder_of(run, args, seed))]
    if not folders:
        return None
    first = folders[0]
    last = log_of(first)[-1]
    path = snapshot.best_model(first, run.kind)
    model, _, described, _ = snapshot.load(path, run.kind)
    size = sum(weight.numel() for weight in model.parameters())
    data, is_whole = data_of(run, args, described.get("dataset"))
    # The best model's.
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
    """Prepare, run what isn't complete, and print the table of what is."""
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
            except KeyboardInterrupt:  # which the runs in hand were sent too
                pool.shutdown(cancel_futures=True)
                raise
    rows = {run: row for run in runs if (row := table_row(run, args))}
    print("| run | published | ours | ours, of a part | trained on, tested on | of | parameters | "
          "trained | commit | model |\n" + 10 * "|---" + "|")
    print("\n".join(rows.values()) + "\n")
    for run in rows:
        if run.data:
            print(f"    python {preparation(run, args)}")
        print(f"    python {training(run, args, 0)}")


if __name__ == "__main__":
    run_script(main)
