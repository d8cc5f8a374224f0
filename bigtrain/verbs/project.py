"""Look for the latents of images: target, found and error as pictures; generated against real ones."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bigtrain.cli import say

if TYPE_CHECKING:
    from bigtrain.evaluation.projection.search import Projector
    from bigtrain.evaluation.projection.settings import ProjectionSettings

OPTIONS = {  # of ProjectionSettings that the command line has, with what they are
    "space": (str, "w (one style), w+ (one a layer) or z (default: w for generators with styles, z for others)"),
    "steps": (int, "steps of Adam (default 1000)"),
    "learning_rate": (float, "Adam's, at its highest (default 0.1)"),
    "pixel_weight": (float, "weight of the pixels' squared difference beside the distance (default 1)"),
    "starts": (int, "of z: searches an image, from as many classes (default 4)"),
    "batch_images": (int, "codes that are looked for at once (default 16)"),
    "resize": (str, "filter for images of another size: lanczos (default), bicubic or box"),
    "seed": (int, "of starts and noise (default 0)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is looked for and how."""
    parser.add_argument("model", type=Path, help="RUN, RUN/checkpoints/IMAGES or RUN/snapshots/FILE")
    parser.add_argument("images", type=Path, nargs="*", help="image files of any size")
    parser.add_argument(
        "--out", type=Path, help="a .png for all images (default: RUN/projections/IMAGES-NAME.png each)"
    )
    parser.add_argument("--compare", type=int, metavar="N", help="project N generated and N real images, and compare")
    parser.add_argument("--real", type=Path, help="of --compare: folder of shards (default: the recipe's)")
    parser.add_argument("--label", help="class of the images, by number or name (default: searched)")
    parser.add_argument(
        "--distance", help="lpips, discriminator or pixels (default: lpips where its weights are, else discriminator)"
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a folder with the weight files of lpips")
    parser.add_argument("--no-noise", action="store_true", help="of styles: keep the generator's constant noise")
    parser.add_argument("--average", help="which moving average of the weights (default: the recipe's first)")
    parser.add_argument("--standing", default="16x256", help="batches x images for BatchNorm's statistics")
    parser.add_argument("--scale", type=int, help="enlarge images by this whole number")
    for name, (kind, line) in OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=line)


def run(arguments: argparse.Namespace) -> int:
    """Search and write; return 0."""
    from bigtrain.evaluation.projection.distance import distance_of
    from bigtrain.evaluation.projection.search import Projector
    from bigtrain.metrics.weights import WeightStore
    from bigtrain.recipe.errors import UsageError
    from bigtrain.sampling.files import writing_to
    from bigtrain.sampling.truncation import Truncation
    from bigtrain.training.loaded import load
    from bigtrain.verbs.sample import standing_of

    if bool(arguments.images) == (arguments.compare is not None):
        raise UsageError("name images to project, or --compare N, not both; for example `bigtrain project RUN cat.png`")
    _check(arguments)
    settings = _settings(arguments)
    standing = standing_of(arguments.standing)
    model = load(arguments.model, arguments.average)
    model.restand(Truncation(), standing)
    label = None if arguments.label is None else model.labels([arguments.label])[0]
    store = WeightStore(() if arguments.weights is None else (arguments.weights,), offline=True)
    distance = distance_of(arguments.distance, model, store)
    with writing_to(_output(arguments, model.images_seen, "picture")):
        projector = Projector(model, distance, settings, label)
        (_compare if arguments.compare else _project)(arguments, projector)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    from bigtrain.evaluation.projection.compare import require_matplotlib
    from bigtrain.recipe.errors import UsageError
    from bigtrain.sampling.sheets import LARGEST_FACTOR

    if arguments.out is not None and arguments.out.suffix.lower() != ".png":
        raise UsageError(f"--out {arguments.out}: a projection is a .png, with .json and .safetensors beside it")
    if arguments.out is not None and any(_is_same(arguments.out, image) for image in arguments.images):
        raise UsageError(f"--out {arguments.out} is one of the images to project; name another file")
    if arguments.out is None and not (arguments.model / "checkpoints").is_dir():
        raise UsageError(f"{arguments.model} is no run folder with room for projections/; add --out FILE.png")
    for name in ("compare", "scale"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UsageError(f"--{name} {getattr(arguments, name)}: at least 1 is needed")
    if (arguments.scale or 1) > LARGEST_FACTOR:
        raise UsageError(f"--scale {arguments.scale}: at most {LARGEST_FACTOR} is possible; leave it out")
    if arguments.compare is not None:
        require_matplotlib()


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _settings(arguments: argparse.Namespace) -> "ProjectionSettings":
    from pydantic import ValidationError

    from bigtrain.evaluation.projection.settings import ProjectionSettings
    from bigtrain.recipe.errors import UsageError

    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    try:
        return ProjectionSettings(**given, noise_maps=not arguments.no_noise)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"{option} {first['input']}: {first['msg'].lower()}") from error


def _output(arguments: argparse.Namespace, images_seen: int, name: str) -> Path:
    folder: Path = arguments.model / "projections"
    return arguments.out or folder / f"{images_seen:012d}-{name}.png"


def _project(arguments: argparse.Namespace, projector: "Projector") -> None:
    from bigtrain.evaluation.projection.output import protocol, save_projection
    from bigtrain.evaluation.projection.targets import read_targets

    model = projector.model
    targets = read_targets(arguments.images, model.image, projector.settings.resize)
    record = protocol(model, projector.distance, projector.settings)
    found = projector(targets)
    for number, name in enumerate(targets.names):
        start, end = float(found.start_distance_N[number]), float(found.distance_N[number])
        rms = float(found.pixel_rms_N[number])
        say(f"{name}: distance {end:.4g} ({projector.distance.name}), from {start:.4g}; {rms:.1f} of 255 levels")
    parts = [slice(None)] if arguments.out else [slice(number, number + 1) for number in range(len(targets))]
    for part in parts:
        one = found[part]
        path = _output(arguments, model.images_seen, one.targets.names[0])
        for written in save_projection(path, one, record, arguments.scale):
            say(str(written))


def _compare(arguments: argparse.Namespace, projector: "Projector") -> None:
    from bigtrain.evaluation.projection import compare
    from bigtrain.evaluation.projection.output import figures_of, protocol, save_json, save_projection

    model, seed = projector.model, projector.settings.seed
    real, part = compare.real_targets(model, arguments.real, arguments.compare, seed)
    generated = compare.generated_targets(model, arguments.compare, seed)
    found = [projector(targets) for targets in (generated, real)]
    measures = compare.comparison(*found)
    record = protocol(model, projector.distance, projector.settings) | {"real_part": part, **measures}
    path = _output(arguments, model.images_seen, "compare")
    say(str(compare.plot(path, record, projector.distance.name)))
    say(str(save_json(path.with_suffix(".json"), {**record, "images": [*map(figures_of, found)]})))
    for kind, some in zip(("generated", "real"), compare.examples(*found), strict=True):
        for written in save_projection(path.with_stem(f"{path.stem}-{kind}"), some, record, arguments.scale):
            say(str(written))
    for name, measure in measures.items():
        medians = " and ".join(f"{measure[kind]['median']:.4g} {kind}" for kind in ("generated", "real"))
        say(f"{name}: medians {medians}; told apart with AUC {measure['auc']:.3f}")
