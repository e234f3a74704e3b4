"""Draw images from a trained Gated PixelCNN, or complete the lower halves of given ones."""

import argparse
import time

from training.arguments import (
    add_device_and_seed,
    non_negative_float,
    parse,
    positive_int,
    probability,
    run_script,
)

# Drawn at once, and kept of their rows: these bound the memory.
BATCH_IMAGES, BATCH_PIXELS, BATCH_FLOATS = 256, 2 ** 18, 2 ** 28


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_device_and_seed(parser)
    parser.add_argument("-m", "--model", required=True, metavar="FILE",
                        help="a model file, or the folder of a run, for its best model")
    parser.add_argument("-o", "--output", default="samples.jpg", metavar="FILE",
                        help=".jpg, .png, or .gif, which shows the images being drawn "
                             "(default: samples.jpg)")
    parser.add_argument("-l", "--label", metavar="N|NAME|all",
                        help="what to draw, if the model has labels (default: 0, or what best "
                             "fits each image to complete); all: a row of COUNT images a label")
    parser.add_argument("-c", "--count", type=positive_int, default=10, metavar="N",
                        help="draw N x N images (default: 10)")
    parser.add_argument("--height", type=positive_int, metavar="N", help="default: the model's")
    parser.add_argument("--width", type=positive_int, metavar="N", help="default: the model's")
    parser.add_argument("--temperature", type=non_negative_float, default=1.0, metavar="X",
                        help="below 1 more likely images, above 1 more varied ones, 0 the most "
                             "likely code of each pixel (default: 1.0)")
    parser.add_argument("--top_p", type=probability, default=1.0, metavar="X",
                        help="draw among the most probable codes that together have this "
                             "probability (default: 1.0)")
    parser.add_argument("--complete", nargs="+", metavar="FILE",
                        help="draw COUNT lower halves for the upper half of each of these")
    network = parser.add_argument_group("network", "The model file knows these; here for checking.")
    for flags in (("-d", "--hidden_dim"), ("--out_hidden_dim",), ("-n", "--blocks_num"),
                  ("--levels",)):
        network.add_argument(*flags, type=positive_int, metavar="N")
    return parse(parser)


def main():
    """Read the model, draw the images, write the picture."""
    args = arguments()

    import torch

    from datasets.quantization import dequantize_pixels
    from sampling.labels import labels_asked, likeliest_labels
    from sampling.pictures import check_picture, read_codes, save_picture
    from training.device import device_of
    from training.snapshot import check_flags, load

    model, label_names, data, content = load(args.model, "pixelcnn")
    channels, levels = model.config.channels, model.config.levels
    check_flags(args.model, content["config"], vars(args))
    model.to(device_of(args.gpu))
    height, width = args.height or data["height"], args.width or data["width"]
    labels = labels_asked(label_names, args.label)
    originals = torch.from_numpy(read_codes(args.complete or [], channels, height, width, levels))
    given_rows = height // 2 if args.complete else 0

    # An image is its label (or None), its original (or None), and its number for the two.
    if args.complete and label_names and args.label is None:
        likeliest = likeliest_labels(model, originals[:, :, :given_rows])
        kinds = [(label, original) for original, label in enumerate(likeliest)]
    else:
        kinds = [(label, original)
                 for original in (range(len(originals)) if args.complete else [None])
                 for label in labels]
    a_row_each = args.complete or args.label == "all"
    rows = len(kinds) if a_row_each else args.count
    whole = 1 if args.complete else 0  # columns that show the originals
    check_picture(args.output, (rows, args.count + whole, height, width, channels))
    images = [(*kind, number) for kind in kinds
              for number in range(args.count if a_row_each else args.count ** 2)]

    codes, seconds = draw(model, images, originals[:, :, :given_rows], height, width,
                          args.temperature, args.top_p, args.seed)
    codes = codes.unflatten(0, (rows, args.count))
    if args.complete:
        shown = originals[[original for _, original in kinds]]
        codes = torch.cat((shown[:, None], codes), dim=1)
    pixels = dequantize_pixels(codes.permute(0, 1, 3, 4, 2).numpy(), levels)
    save_picture(args.output, pixels, given_rows, whole)
    drawn = list(dict.fromkeys(label for label, _ in kinds))
    of = f" of {', '.join(label_names[label] for label in drawn)}" if label_names else ""
    rate = len(images) / seconds
    print(f"{args.output}: {len(images)} images{of} in {seconds:.2g} s, "
          f"{rate:{',.0f' if rate >= 100 else '.3g'}} images/s")


def draw(model, images, upper, height, width, temperature, top_p, seed):
    """Draw `images` in batches that the memory can hold.

    images: [(label, number in `upper`, stream), …]. upper: codes (originals, C, rows, W).
    Returns codes (images, C, H, W), and how many seconds it took once the sampler was ready.
    """
    import torch
    from tqdm import tqdm

    from sampling.draws import Draws
    from sampling.pixelcnn import sample

    row = 4 * model.config.blocks_num * model.config.hidden_dim * width  # floats of an image's row
    at_once = max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width), BATCH_FLOATS // row))
    batches = [images[i:i + at_once] for i in range(0, len(images), at_once)]
    device, drawn = model.logits.weight.device, []

    def tensor_of(labels):
        return None if labels[0] is None else torch.tensor(labels, device=device)

    # One pixel, so that the sampler is loaded, or the first time on a machine compiled.
    sample(model, Draws(seed, [0]), tensor_of([images[0][0]]), 1, 1)
    began = time.perf_counter()
    with tqdm(total=len(batches) * (height - upper.shape[2]), unit="row", disable=None) as bar:
        for batch in batches:
            label, original, stream = map(list, zip(*batch, strict=True))
            drawn.append(sample(
                model, Draws(seed, stream), tensor_of(label), height, width, temperature, top_p,
                given=upper[original] if len(upper) else None, on_row=bar.update))
    return torch.cat(drawn), time.perf_counter() - began


if __name__ == "__main__":
    run_script(main)
