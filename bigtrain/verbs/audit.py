"""Look for copies of training images, missing kinds, wrong classes and an overfitted discriminator."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigtrain.cli import say
from bigtrain.recipe.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from bigtrain.evaluation.audit.audit import Audit
    from bigtrain.evaluation.audit.section import Section
    from bigtrain.evaluation.audit.subject import OpenedRun

WORDS = {True: "SUSPICIOUS", False: "ok", None: "not judged"}
NUM_LEAKS = 3  # largest ones, that are printed
FEWEST_IMAGES = 100  # under it no share says anything


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is audited and how."""
    parser.add_argument("model", help="RUN, RUN/checkpoints/IMAGES or RUN/snapshots/FILE (which has no discriminator)")
    parser.add_argument("--real", metavar="SHARDS", help="folder of the run's shards (default: where the recipe says)")
    parser.add_argument("--num", default="10k", help="generated images (default 10k)")
    parser.add_argument(
        "--extractor",
        help="in whose features images are near (default: classifier where there are labels, else random)",
    )
    parser.add_argument(
        "--checkpoint", default="newest", help="which of a run's: newest (default), best, or images seen such as 64k"
    )
    parser.add_argument(
        "--standing", default="16x256", help="batches x images for BatchNorm's statistics (default 16x256)"
    )
    parser.add_argument("--average", help="which moving average of the weights (default: the recipe's first)")
    parser.add_argument("--truncation", default="none", help="as for `bigtrain sample` (default none)")
    parser.add_argument("--seed", type=int, default=0, help="which images (default 0)")
    parser.add_argument("--cache", type=Path, help="folder of trained classifiers (default: cache/ beside the run)")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write here, pictures beside it (default RUN/audits/IMAGES.json)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Audit, print and write; return 0 whatever was found."""
    num_images = _num_images(arguments.num)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("an audit runs in one process; start it as `bigtrain audit`, without a launcher")
    from bigtrain.evaluation.audit.pictures import require_matplotlib  # takes seconds; a wrong command line should not
    from bigtrain.evaluation.audit.subject import Drawing, open_run
    from bigtrain.sampling.files import writing_to
    from bigtrain.sampling.truncation import Truncation
    from bigtrain.verbs.sample import standing_of

    require_matplotlib()
    drawing = Drawing(
        truncation=Truncation.parse(arguments.truncation),
        checkpoint=arguments.checkpoint,
        average=arguments.average,
        seed=arguments.seed,
        standing=standing_of(arguments.standing),
    )
    opened = open_run(Path(arguments.model), arguments.real, drawing)
    out = _out(arguments, opened)
    with writing_to(out):
        found = _found(arguments, opened, num_images)
        for line in lines(found, arguments.model):
            say(line)
        for path in found.write(out):
            say(str(path))
    return EXIT_DONE


def _found(arguments: argparse.Namespace, opened: "OpenedRun", num_images: int) -> "Audit":
    import torch

    from bigtrain.evaluation.audit.audit import audit, build_looker, extractor_settings
    from bigtrain.evaluation.audit.section import AuditSettings

    subject = opened.subject
    extractor = extractor_settings(arguments.extractor, subject, opened.model.recipe.evaluate)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    looker = build_looker(subject, extractor, _cache(arguments, opened), device)
    settings = AuditSettings(num_images=num_images, seed=arguments.seed)
    return audit(subject, looker, settings, watch)


def watch(batches: Iterable[Any], what: str, num_batches: int) -> Iterable[Any]:
    """Show on a terminal how far a stream of batches is."""
    from tqdm import tqdm

    shown: Iterable[Any] = tqdm(batches, what, num_batches, leave=False, disable=not sys.stderr.isatty())
    return shown


def _num_images(text: str) -> int:
    from bigtrain.recipe.units import parse_count

    try:
        num_images = int(str(parse_count(text)))
    except ValueError as error:
        raise UsageError(f"--num {text}: not a number of images ({error}); write for example 10k") from error
    if num_images < FEWEST_IMAGES:
        raise UsageError(f"--num {text}: an audit needs {FEWEST_IMAGES} images; ask for more")
    return num_images


def _out(arguments: argparse.Namespace, opened: "OpenedRun") -> Path:
    if arguments.json is not None:
        out: Path = arguments.json
        return out
    if opened.folder is None:
        raise UsageError(f"{opened.model.path} lies in no run folder; say with --json where to write")
    return opened.folder / "audits" / f"{opened.subject.images_seen:012d}.json"


def _cache(arguments: argparse.Namespace, opened: "OpenedRun") -> Path:
    beside = opened.model.path if opened.folder is None else opened.folder
    cache: Path = arguments.cache or beside.resolve().parent / "cache"
    return cache


def lines(found: "Audit", where: str) -> Iterator[str]:
    """Yield what is printed: what was looked at, then a verdict and the figures of each section."""
    protocol = found.protocol
    yield (
        f"audit of {where} after {found.images_seen:,} images seen: {protocol['num_generated']:,} generated, "
        f"{protocol['num_training']:,} training and {protocol['num_held_out']:,} held-out images; features: "
        f"{protocol['extractor']}"
    )
    for name, section in found.sections.items():
        yield f"{name:<14} {WORDS[section.suspicious]:<11} {section.verdict}"
        for row in FIGURES[name](section):
            yield f"{'':<26} {row}"


def _nearest(section: "Section") -> Iterator[str]:
    figures = section.figures
    yield (
        f"median distance {figures['median_distance']:.4g}, of {figures['real_is']} "
        f"{figures['median_distance_real']:.4g}; nearest: image {figures['nearest_images'][0]} at "
        f"{figures['nearest_distances'][0]:.4g}"
    )


def _duplicates(section: "Section") -> Iterator[str]:
    figures = section.figures
    yield f"near is up to {figures['threshold']:.4g}, {figures['threshold_is']}"


def _modes(section: "Section") -> Iterator[str]:
    for kind in ("classes", "clusters"):
        law = section.figures[kind]
        if law is None:
            continue
        divergence = "infinite" if law["kl_nats"] is None else f"{law['kl_nats']:.4f}"
        yield (
            f"{kind}: {law['covered']} of {law['num']}; entropy {law['entropy_nats']:.3f} nats, real "
            f"{law['entropy_real_nats']:.3f}; divergence {divergence}, by chance {law['kl_by_chance_nats']:.4f}"
        )
    birthday = section.figures["birthday"]
    if "support_images" in birthday:
        yield f"as if there were {_support(birthday, '')} different images, of real ones {_support(birthday, '_real')}"


def _support(birthday: dict[str, Any], suffix: str) -> str:
    found = birthday[f"support_images{suffix}"]
    return f"{found:,.0f}" if found else f"more than {birthday[f'support_images_at_least{suffix}']:,.0f}"


def _leakage(section: "Section") -> Iterator[str]:
    leaks = list(section.figures.get("largest_leaks", {}).items())
    for leak, share in leaks[:NUM_LEAKS]:
        yield f"seen {leak}: {share:.1%}"


def _discriminator(section: "Section") -> Iterator[str]:
    for name in ("training", "held_out", "generated"):
        if name in section.figures:
            of = section.figures[name]
            yield (
                f"{name.replace('_', '-')}: mean output {of['mean']:.4g}, mean sign {of['mean_sign']:.2f} "
                f"({of['num_images']:,} images)"
            )
    if section.figures.get("way_to_generated") is not None:
        way = section.figures["way_to_generated"]
        yield f"held-out images lie {way:.0%} of the way from training to generated ones, within classes"


FIGURES = {
    "nearest": _nearest,
    "duplicates": _duplicates,
    "modes": _modes,
    "leakage": _leakage,
    "discriminator": _discriminator,
}
