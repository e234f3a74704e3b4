"""Draw images from a trained Gated PixelCNN, or complete the lower halves of given ones."""

import argparse
from pathlib import Path

from cli.arguments import image_side, parse, positive_int
from cli.sampling_arguments import add_network_checks, add_randomness, add_sources
from cli.script import run_script


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_sources(parser)
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
    add_randomness(parser, "images", "pixel")
    parser.add_argument("--complete", nargs="+", metavar="FILE",
                        help="draw COUNT lower halves for the upper half of each of these")
    add_network_checks(parser, ("-d", "--hidden_dim"), ("--out_hidden_dim",),
                       ("-n", "--blocks_num"), ("--levels",))
    return parse(parser)


def main() -> None:
    """Read the models, draw the images, write the pictures."""
    args = arguments()

    # After parsing, because importing torch takes seconds.
    from cli.image_request import is_folder, resolve_image_requests
    from cli.results_page import write_image_page
    from models.model_file import load
    from sampling.image_rendering import render_grid
    from training.device import select_device

    in_folder = is_folder(args.output)
    requests = resolve_image_requests(args)
    device, drawn = select_device(args.gpu), []
    for request in requests:
        model = load(request.model.file, "pixelcnn").model.to(device)
        seconds = [render_grid(model, grid, request.options) for grid in request.grids]
        speed = in_time(request.count, sum(seconds))
        print(f"{request.summary()} {speed}")
        drawn.append((request, seconds, speed))
    if in_folder:
        path = Path(args.output) / "index.html"
        write_image_page(path, drawn, vars(args))
        print(f"{path} shows them beside each other")


def in_time(images: int, seconds: float) -> str:
    """Say how long that many images took, and how many that is a second."""
    rate = images / seconds
    return f"in {seconds:.2g} s, {rate:{',.0f' if rate >= 100 else '.3g'}} images/s"


if __name__ == "__main__":
    run_script(main, "--count")
