"""Draw images from a trained Gated PixelCNN, or complete the lower halves of given ones."""

import argparse
from pathlib import Path

from cli.arguments import (
    add_device_and_seed,
    add_models,
    image_side,
    non_negative_float,
    parse,
    positive_int,
    probability,
)
from cli.script import run_script
from common.text import printable


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_device_and_seed(parser)
    add_models(parser)
    parser.add_argument("-o", "--output", default="samples.jpg", metavar="FILE|DIR/",
                        help=".jpg, .png, or .gif, which shows the images being drawn; or a folder "
                             "for a picture of each model and label, and for index.html, a page "
                             "that shows them beside each other (default: samples.jpg)")
    parser.add_argument("-l", "--label", metavar="N|NAME|all",
                        help="what to draw, if the model has labels (default: 0, or what best "
                             "fits each image to complete); all: a row of COUNT images a label, "
                             "or in a folder a picture")
    parser.add_argument("--condition_from", metavar="FILE.npy|DIR",
                        help="the vector to draw for, if the model is conditioned on vectors; an "
                             "array of several, or a folder of files: a row of COUNT images each, "
                             "or in a folder a picture; by default that beside each image to "
                             "complete, NAME.npy beside NAME.png")
    parser.add_argument("-c", "--count", type=positive_int, default=10, metavar="N",
                        help="draw N x N images (default: 10)")
    parser.add_argument("--height", type=image_side, metavar="N", help="default: the model's")
    parser.add_argument("--width", type=image_side, metavar="N", help="default: the model's")
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
    """Read the models, draw the images, write the pictures."""
    args = arguments()

    from cli import image_request as sheets
    from models.model_file import files_asked, load
    from training.device import select_device

    plans = sheets.plans(files_asked(args.model, "pixelcnn", args.snapshots), args)
    in_folder, device, drawn = sheets.is_folder(args.output), select_device(args.gpu), []
    for plan in plans:
        model = load(plan.file, "pixelcnn").model
        model.to(device)
        seconds = [sheets.perform(model, plan, sheet, args) for sheet in plan.sheets]
        kinds = [label for sheet in plan.sheets for label, _ in sheet.kinds]
        of = ", ".join(printable(plan.conditions.names[label]) for label in dict.fromkeys(kinds)
                       if label is not None)
        images = sum(sheet.rows for sheet in plan.sheets) * args.count
        path, said = plan.sheets[0].path, in_time(images, sum(seconds))
        print(f"{path.parent if in_folder else path}: {images} images{f' of {of}' * bool(of)} "
              + said)
        drawn.append((plan, seconds, said))
    if in_folder:
        print(f"{write_page(drawn, args)} shows them beside each other")


def in_time(images, seconds):
    """In how much time so many images were drawn, in words."""
    rate = images / seconds
    return f"in {seconds:.2g} s, {rate:{',.0f' if rate >= 100 else '.3g'}} images/s"


def write_page(drawn, args):
    """index.html, which shows what was drawn: [(plan, seconds of each sheet, in words), …]."""
    from sampling.output import page

    columns = []
    for plan, seconds, said in drawn:
        cells = {sheet.name: [page.Item(sheet.path, f"{sheet.rows * args.count} images in "
                                        f"{its_seconds:.2g} s", sheet.path.read_bytes())]
                 for sheet, its_seconds in zip(plan.sheets, seconds, strict=True)}
        columns.append(page.Column(plan.name, plan.file, {"drawn": said, **plan.facts}, cells))
    path = Path(args.output) / "index.html"
    page.write(path, columns, vars(args))
    return path


if __name__ == "__main__":
    run_script(main, "--count")
