"""Train a WaveNet (arXiv 1609.03499) on the recordings that preprocess.py prepared.

    python preprocess.py --data vctk/wav/p225 --stacks_num 4
    python train_wavenet.py -g0
"""

import argparse
from functools import partial

from cli.arguments import add_distribution, add_training, parse, positive_float, positive_int
from cli.script import run_script
from cli.training_request import (
    distribution_parameters,
    parameters_as_flags,
    recorded_flags,
    run_settings,
    training_settings,
)
from training import restart


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training(parser, batchsize=4, epoch=20, learning_rate=1e-3)
    parser.add_argument("-d", "--data", default=".", metavar="DIR",
                        help="the folder that preprocess.py wrote to (default: .)")
    parser.add_argument("--hidden_dim", type=positive_int, default=32, metavar="N",
                        help="residual channels (default: 32)")
    parser.add_argument("--out_hidden_dim", type=positive_int, default=32, metavar="N",
                        help="skip channels (default: 32)")
    parser.add_argument("-s", "--stacks_num", type=positive_int, metavar="N",
                        help="stacks of layers (default: what preprocess.py was told)")
    parser.add_argument("-l", "--layers_num", type=positive_int, metavar="N",
                        help="layers in a stack, of dilation 1, 2, 4, … (default: likewise)")
    parser.add_argument("--clip", type=positive_float, default=1.0, metavar="X",
                        help="cut the gradient's L2 norm to this (default: 1.0)")
    add_distribution(parser)
    parser.add_argument("--levels", type=positive_int, metavar="N",
                        help="values of a sample; must be the data's (default: those)")
    parser.add_argument("--speech_updates", type=positive_int, default=3000, metavar="N",
                        help="with texts: updates of the network that turns them into frames, "
                             "before the WaveNet's training (default: 3000)")
    return parse(parser)


def main():
    """Parse, build, run."""
    args = arguments()
    if args.auto_restart:
        restart.supervise(args.auto_restart, args.out)

    # After parsing, for importing torch takes seconds.
    from common.errors import UserError
    from datasets.corpus.reader import Corpus
    from datasets.corpus.windows import Windows
    from models.local_conditioning import MARGIN_FRAMES
    from models.wavenet import WaveNet, WaveNetConfig
    from sampling.previews import draw_sound_previews
    from training import likelihood, run
    from training.task import Task

    start = run.start(run_settings(args), "wavenet")
    corpus = Corpus(args.data)
    if args.levels not in (None, corpus.levels):
        raise UserError(f"--levels {args.levels}: the corpus in {args.data} has {corpus.levels} "
                        f"levels; leave the flag out, or run preprocess.py --levels {args.levels}")
    speech = None
    if corpus.features and corpus.features.kind == "text":
        from training.speech import obtain
        speech = obtain(corpus, start, args.speech_updates)
        corpus.use_mel_frames()
    features = corpus.features
    # A run that began before networks had it goes on without it.
    prediction = args.distribution == "logistics" and (
        not start.snapshot or start.snapshot["config"].get("prediction", False))
    with parameters_as_flags("levels", "hidden_dim", "out_hidden_dim", "stacks_num",
                             "layers_num"):
        config = WaveNetConfig(corpus.levels, args.hidden_dim, args.out_hidden_dim,
                               args.stacks_num or corpus.stacks_num,
                               args.layers_num or corpus.layers_num, len(corpus.label_names),
                               features=features.width if features else 0,
                               hop=features.hop if features else 0, prediction=prediction,
                               **distribution_parameters(args))

    def windows(split):
        if not split.recordings:
            return None
        return Windows(split, corpus.target_length, config.receptive_field, corpus.levels,
                       MARGIN_FRAMES)

    model = WaveNet(config)
    data = {"levels": corpus.levels, "rate": corpus.rate, "encoding": corpus.encoding}
    if features:
        model.frames.set_normalization(*corpus.train.frame_statistics())
        data["features"] = features.as_dict()
    preview_split = corpus.validation if corpus.validation.recordings else corpus.train
    task = Task(
        kind="wavenet", model=model,
        training_set=windows(corpus.train), validation_set=windows(corpus.validation),
        data=data, label_names=corpus.label_names,
        unit="samples", count_samples=likelihood.count_targets,
        draw=partial(draw_sound_previews, label_names=corpus.label_names, rate=corpus.rate,
                     part=preview_split, encoding=corpus.encoding), speech=speech)
    run.train(start, task, training_settings(args, clip=args.clip), recorded_flags(args))


if __name__ == "__main__":
    run_script(main, "--batchsize or --hidden_dim")
