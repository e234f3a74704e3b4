"""Train a WaveNet (arXiv 1609.03499) on the recordings that preprocess.py prepared.

    python preprocess.py --data vctk/wav/p225 --stacks_num 4
    python train_wavenet.py -g0
"""

import argparse
from functools import partial

from cli.arguments import add_training, parse, positive_float, positive_int
from cli.script import run_script
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
    parser.add_argument("--levels", type=positive_int, metavar="N",
                        help="values of a sample; must be the data's (default: those)")
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
    from models.local import MARGIN
    from models.wavenet import WaveNet, WaveNetConfig
    from sampling.previews import draw_sound_previews
    from training import likelihood, run

    start = run.start(args, "wavenet")
    corpus = Corpus(args.data)
    if args.levels not in (None, corpus.levels):
        raise UserError(f"--levels {args.levels}: the corpus in {args.data} has {corpus.levels} "
                        f"levels; leave the flag out, or run preprocess.py --levels {args.levels}")
    try:
        config = WaveNetConfig(corpus.levels, args.hidden_dim, args.out_hidden_dim,
                               args.stacks_num or corpus.stacks_num,
                               args.layers_num or corpus.layers_num, len(corpus.label_names),
                               *((corpus.features.width, corpus.features.hop)
                                 if corpus.features else ()))
    except ValueError as error:
        raise UserError(str(error)) from None

    def windows(part):
        if not part.recordings:
            return None
        return Windows(part, corpus.target_length, config.receptive_field, corpus.levels, MARGIN)

    model = WaveNet(config)
    if corpus.features:
        model.frames.standardize(*corpus.train.frame_statistics())
    run.train(args, start, "wavenet", model, training_set=windows(corpus.train),
              validation_set=windows(corpus.validation),
              data={"levels": corpus.levels, "rate": corpus.rate, **described(corpus.features)},
              label_names=corpus.label_names,
              clip=args.clip, unit="samples", samples=likelihood.count_targets,
              draw=partial(draw_sound_previews, label_names=corpus.label_names, rate=corpus.rate,
                           part=corpus.validation if corpus.validation.recordings else
                           corpus.train))


def described(features):
    """What model files say of the features, by which others can be made for sampling."""
    return {"features": features.as_dict()} if features else {}


if __name__ == "__main__":
    run_script(main, "--batchsize or --hidden_dim")
