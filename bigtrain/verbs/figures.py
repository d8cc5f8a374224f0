"""Draw figures of a run, also as films: class sheets, ways, styles, noise, truncation, time-lapse."""

import argparse
from pathlib import Path

from bigtrain.cli import say

KINDS = {
    "arithmetic": "a - b + c, one row for every three images",
    "class-way": "from class to class, one row a latent; a film loops",
    "classes": "one row a class; a column shares its latent",
    "images": "images by number, or those of a file of codes",
    "lapse": "training in time-lapse, from RUN/samples or RUN/snapshots",
    "latent-way": "from latent to latent, one row a class; a film loops",
    "mixing": "StyleGAN2: images of the rows with some layers' styles of those of the columns",
    "noise": "StyleGAN2: realisations of the noise and their standard deviation",
    "truncation": "the same images at several truncations",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is drawn and where it goes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "kinds:\n" + "\n".join(f"  {name:<11} {line}" for name, line in KINDS.items())
    parser.add_argument("model", type=Path, help="RUN, RUN/checkpoints/IMAGES or RUN/snapshots/FILE")
    parser.add_argument("kind", help="one of the kinds below")
    parser.add_argument(
        "--out", type=Path, action="append",
        help="a .png, or a film: .mp4, .gif, .webp; may be given several times (default: RUN/figures/IMAGES-KIND.png)",
    )  # fmt: skip
    parser.add_argument("--index", help="numbers of images, as `bigtrain sample` counts them, such as 3,17,42")
    parser.add_argument("--labels", help="classes by number or name, such as 0,1,2")
    parser.add_argument("--codes", type=Path, help="draw the codes of this file, as `bigtrain project` writes it")
    parser.add_argument("--rows", type=int, help="rows of images")
    parser.add_argument("--columns", type=int, help="images in a row")
    parser.add_argument("--steps", type=int, help="frames of a film from one key image to the next (default 30)")
    parser.add_argument("--way", help="interpolation of latents: slerp (default) or lerp; styles go by straight lines")
    parser.add_argument("--truncation", help="as in `bigtrain sample`; for the kind truncation several, with commas")
    parser.add_argument("--layers", help="of mixing: ranges of style layers, such as 0-3,4-7 (default: thirds)")
    parser.add_argument("--realisations", type=int, help="of noise: how many the deviation is over (default 100)")
    parser.add_argument("--source", help="of lapse: samples or snapshots (default: snapshots where there are some)")
    parser.add_argument("--seed", type=int, default=0, help="which images (default 0)")
    parser.add_argument("--average", help="which moving average of the weights (default: the recipe's first)")
    parser.add_argument("--standing", default="16x256", help="batches x images for BatchNorm's statistics")
    parser.add_argument(
        "--scale", type=int, help="enlarge images by this whole number (default: until a side has 64 pixels)"
    )
    parser.add_argument("--fps", type=int, help="frames a second of a film (default: 25; time-lapse 8, truncation 3)")


def run(arguments: argparse.Namespace) -> int:
    """Draw and write; return 0."""
    from bigtrain.evaluation.figures import FIGURES
    from bigtrain.evaluation.figures.base import (
        FigureSettings,
        Source,
        check_output,
        default_output,
        drawing,
        save_drawing,
    )
    from bigtrain.recipe.errors import UsageError
    from bigtrain.sampling.files import writing_to
    from bigtrain.sampling.sheets import LARGEST_FACTOR
    from bigtrain.verbs.sample import numbers_of, standing_of

    FIGURES.get(arguments.kind)
    for name in ("scale", "fps"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UsageError(f"--{name} {getattr(arguments, name)}: at least 1 is needed; leave it out")
    if (arguments.scale or 1) > LARGEST_FACTOR:
        raise UsageError(f"--scale {arguments.scale}: at most {LARGEST_FACTOR} is possible; leave it out")
    same = ("codes", "rows", "columns", "steps", "way", "truncation", "layers", "realisations", "source")
    settings = FigureSettings(
        **{name: getattr(arguments, name) for name in (*same, "seed", "average")},
        index=None if arguments.index is None else tuple(numbers_of("--index", arguments.index)),
        labels=None if arguments.labels is None else tuple(arguments.labels.split(",")),
        standing=standing_of(arguments.standing),
    )
    source = Source(arguments.model, settings)
    drawn = drawing(arguments.kind, source)
    outputs = arguments.out or [default_output(source, arguments.kind)]
    for path in outputs:
        check_output(drawn, path)
    for path in outputs:
        with writing_to(path):
            say(str(save_drawing(drawn, path, arguments.scale, arguments.fps)))
    for note in drawn.notes:
        say(note)
    return 0
