"""Train a Gated PixelCNN (arXiv 1606.05328) on MNIST, Fashion-MNIST, CIFAR-10 or your images.

    python train_pixelcnn.py --levels 256 --dataset cifar
    python train_pixelcnn.py --dataset path/to/pictures --height 32 --width 32 --out runs/pictures
"""

import argparse
from functools import partial

from cli.arguments import (
    add_distribution,
    add_training,
    fraction,
    image_side,
    parse,
    positive_float,
    positive_int,
    whole_number,
)
from cli.script import run_script
from cli.training_request import (
    distribution_parameters,
    parameters_as_flags,
    recorded_flags,
    run_settings,
    training_settings,
)
from training import distributed, restart


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training(parser, batchsize=16, epoch=20, learning_rate=1e-3)
    parser.add_argument("-d", "--hidden_dim", type=positive_int, default=128, metavar="N",
                        help="feature maps of either stack (default: 128)")
    parser.add_argument("--out_hidden_dim", type=positive_int, default=16, metavar="N",
                        help="feature maps before the logits (default: 16)")
    parser.add_argument("-n", "--blocks_num", type=positive_int, default=15, metavar="N",
                        help="blocks in all, the first 7x7 one included (default: 15)")
    parser.add_argument("--no_position", action="store_true",
                        help="don't tell the network where in the picture a pixel is, as the paper "
                             "doesn't")
    parser.add_argument("--embedding", type=whole_number(0, 2 ** 16), default=0, metavar="N",
                        help="also read N learned numbers for each value of a sub-pixel, which "
                             "helps with 256 levels; 16 is plenty (default: 0, as the paper)")
    add_distribution(parser)
    parser.add_argument("--gradclip", type=positive_float, default=1.0, metavar="X",
                        help="cut the gradient's L2 norm to this (default: 1.0)")
    parser.add_argument("--levels", type=positive_int, default=2, metavar="N",
                        help="values of a sub-pixel, 2 to 256 (default: 2)")
    parser.add_argument("--binarize", choices=("threshold", "sampled"), default="threshold",
                        help="how pixels become 2 levels: at 128, or drawn afresh each epoch with "
                             "the pixel as probability (default: threshold)")
    parser.add_argument("--flip", action="store_true",
                        help="mirror training images left to right, half of them in each epoch, "
                             "drawn afresh")
    parser.add_argument("--dataset", default="mnist", metavar="NAME|FOLDER",
                        help="mnist, fashion-mnist, cifar, or a folder of images, its sub-folders "
                             "being classes (default: mnist)")
    parser.add_argument("--data", default="data", metavar="DIR",
                        help="where the published sets lie or are downloaded to (default: data)")
    parser.add_argument("--height", type=image_side, metavar="N",
                        help="of the images (default: the published set's; 32 for a folder)")
    parser.add_argument("--width", type=image_side, metavar="N", help="likewise")
    parser.add_argument("--condition", "--labels", choices=("class", "none", "npy"),
                        default="class",
                        help="condition on the images' classes, if they have any, on nothing, or "
                             "on a vector for each: NAME.npy beside NAME.png in a folder; of a "
                             "published set DATASET_train_vectors.npy and "
                             "DATASET_test_vectors.npy in --data, a row for each image "
                             "(default: class; --labels is the flag's earlier name)")
    parser.add_argument("--validation", type=fraction, default=0.05, metavar="X",
                        help="fraction of the training images to hold back (default: 0.05)")
    return parse(parser)


def main():
    """Parse, build, run."""
    args = arguments()
    if args.auto_restart:
        restart.supervise(args.auto_restart, args.out)

    # After parsing, for importing torch takes seconds.
    from datasets.images.dataset import ImageCodes, check_codes, load_images
    from models.pixelcnn import PixelCNN, PixelCNNConfig
    from sampling.previews import draw_image_previews
    from training import run
    from training.task import Task

    check_codes(args.levels, args.binarize)
    start = run.start(run_settings(args), "pixelcnn")
    with distributed.local_main_first():
        images = load_images(args.dataset, args.data, args.height, args.width, args.validation,
                             args.condition)
    _, channels, height, width = images.train.pixels.shape
    shown = images.validation if len(images.validation.pixels) else images.train

    def codes(split, fixed, flip=False):
        if split is None or not len(split.pixels):
            return None
        return ImageCodes(split.pixels, split.labels, args.levels, args.binarize, start.seed,
                          fixed, flip)

    with parameters_as_flags("levels", "hidden_dim", "out_hidden_dim", "blocks_num", "embedding"):
        config = PixelCNNConfig(args.levels, channels, args.hidden_dim, args.out_hidden_dim,
                                args.blocks_num, len(images.label_names), images.vector,
                                position=not args.no_position, embedding=args.embedding,
                                **distribution_parameters(args))
    model = PixelCNN(config)
    if images.vector:
        model.vector_scale.fill_(images.vector_scale)
        preview_labels = shown.labels
    else:
        preview_labels = range(len(images.label_names))
    task = Task(
        kind="pixelcnn", model=model,
        training_set=codes(images.train, fixed=False, flip=args.flip),
        validation_set=codes(images.validation, fixed=True),
        test_set=codes(images.test, fixed=True),
        data={"dataset": images.name, "levels": args.levels, "channels": channels,
              "height": height, "width": width, "binarize": args.binarize},
        label_names=images.label_names,
        unit="images", count_samples=lambda batch: len(batch.codes),
        dimensions=channels * height * width,
        draw=partial(draw_image_previews, labels=preview_labels, height=height, width=width))
    run.train(start, task, training_settings(args, clip=args.gradclip), recorded_flags(args))


if __name__ == "__main__":
    run_script(main, "--batchsize or --hidden_dim")
