"""Judge generators or sets of images against real ones: FID and its kin, each with its protocol."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from bigtrain.cli import say
from bigtrain.engine.processes.launch import Launch, has_launcher_here, join
from bigtrain.engine.processes.preemption import die_with_parent, watch
from bigtrain.evaluation.curve import Range, curve_of
from bigtrain.evaluation.judge import Judgement
from bigtrain.evaluation.options import Options
from bigtrain.evaluation.plot import plot_curve
from bigtrain.evaluation.protocols import PROTOCOLS
from bigtrain.evaluation.reference import SPLITS
from bigtrain.evaluation.results import is_result, read_results, write_in_run, write_real, write_results
from bigtrain.evaluation.session import Question, Session
from bigtrain.evaluation.subjects import Choice
from bigtrain.evaluation.table import protocol_lines, tables
from bigtrain.metrics.extractors.inception import RESIZES
from bigtrain.metrics.names import METRICS
from bigtrain.metrics.weights import FOLDERS_VARIABLE, OFFLINE_VARIABLE, WeightStore
from bigtrain.recipe.errors import BigtrainError, UsageError
from bigtrain.recipe.units import parse_count
from bigtrain.sampling.truncation import Truncation
from bigtrain.verbs._watching import add_watch_arguments, watch_run
from bigtrain.verbs.sample import check_batch, standing_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is judged, against what, and how."""
    parser.add_argument(
        "what",
        nargs="+",
        metavar="WHAT",
        help="a run, a checkpoint or a snapshot; shards; a folder or zip of images; an .npz of images (arr_0, uint8 "
        "NHWC); or a .json that --json has written, to be shown beside the others",
    )
    parser.add_argument(
        "--real",
        help="real images: shards, a folder or zip, an .npz of images or moments (mu, sigma) "
        "(default: what the run was trained on)",
    )
    parser.add_argument(
        "--split", choices=list(SPLITS), help="part of the run's own images, also with --real where they lie now"
    )
    parser.add_argument(
        "--metrics",
        help=f"with commas, the main one first: {', '.join(METRICS)}; prdc is in the features of the first (default: "
        "as in the run's recipe, or fid,kid)",
    )
    parser.add_argument("--num", help="generated images (default: as in the recipe, or 50k; all of a set of images)")
    parser.add_argument("--per-class", action="store_true", help="the Frechet distance within each class too")
    parser.add_argument(
        "--protocol", choices=list(PROTOCOLS), help="judge as a paper does; options that contradict it are refused"
    )
    parser.add_argument(
        "--resize", choices=list(RESIZES), help="how Inception's images come to 299 pixels (default tensorflow)"
    )
    _drawing_arguments(parser)
    _place_arguments(parser)
    add_watch_arguments(parser)


def _drawing_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--truncation", help="none, LAW:THRESHOLD or psi:P, as in `bigtrain sample` (default none)")
    parser.add_argument(
        "--truncation-curve",
        metavar="LAW:FIRST:LAST:STEP",
        help="judge at each threshold, such as resample:0.05:2.0:0.05 or psi:0:1:0.1, into RUN/curves: a table, a file "
        "and a picture; goes on where it was cut short",
    )
    parser.add_argument(
        "--checkpoint", default=Choice.checkpoint, help="of a run: newest, best, or images seen (default newest)"
    )
    parser.add_argument("--by", metavar="FIGURE", help="what makes a checkpoint best (default: as its recipe ranks)")
    parser.add_argument("--average", help="a moving average of the weights, or all (default: the recipe's first)")
    parser.add_argument("--seed", type=int, help="which images (default: as in the recipe, or 0)")
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="mean and standard deviation over N sets of images (default 1)",
    )
    parser.add_argument(
        "--standing", help="batches x images for BatchNorm's statistics (default: as in the recipe, or 16x256)"
    )
    parser.add_argument("--batch", metavar="N", help="images of every batch (default: as in the recipe, or 64)")


def _place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="OUT", help="write figures and protocols to this file")
    parser.add_argument(
        "--export-real", type=Path, metavar="OUT", help="write mean and covariance of the real features as mu, sigma"
    )
    parser.add_argument(
        "--record", action="store_true", help="write RUN/evaluations/IMAGES-PROTOCOL.json too, as training does"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="DIR", help=f"where weight files are looked for first (or {FOLDERS_VARIABLE})"
    )
    parser.add_argument("--offline", action="store_true", help=f"download nothing (or {OFFLINE_VARIABLE}=1)")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where real statistics and classifiers are kept (default: cache/ beside the run, or ~/.cache/bigtrain)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Judge and tell; return 0. With several processes every rank works and the first one speaks."""
    if has_launcher_here():
        die_with_parent()
    signals = watch() if arguments.watch else None  # first thing, so that a stop during start-up counts
    options, thresholds = read_options(arguments), _thresholds(arguments)
    if signals is not None:
        return watch_run(arguments, options, signals)
    if arguments.once:
        raise UsageError("--once says when to end watching; add --watch")
    launch = join()
    judgements: list[Judgement] = []
    try:
        _judge_all(arguments, Session(options, launch), thresholds, judgements)
    except BigtrainError:
        if judgements and launch.ranks.is_main:
            _tell(judgements, None)  # what is known may have taken hours; a file would pass for the whole answer
        raise
    if judgements:
        launch.ranks.on_main(lambda: _tell(judgements, arguments.json))
    launch.leave()
    return 0


def _judge_all(
    arguments: argparse.Namespace, session: Session, thresholds: Range | None, judgements: list[Judgement]
) -> None:
    """Judge what the command line names, in its order; judgements are added to the list as they are made."""
    launch, options = session.launch, session.options
    for what in arguments.what:
        if is_result(what):
            judgements += read_results(Path(what))
            continue
        for question in session.questions(what):
            if thresholds is not None:
                _curve(session, question, thresholds)
                continue
            with _bar(launch, question, options.num_seeds) as moved:
                judgements.append(session.judge(question, moved))
            if arguments.export_real is not None:
                launch.ranks.on_main(lambda: write_real(arguments.export_real, question.evaluator))  # noqa: B023
            if arguments.record:
                launch.ranks.on_main(lambda: write_in_run(question.subject, judgements[-1]))  # noqa: B023 (called now)


def _curve(session: Session, question: Question, thresholds: Range) -> None:
    """Judge at every threshold, and tell; the file is there after each."""
    times = len(thresholds.truncations) * session.options.num_seeds
    with _bar(session.launch, question, times) as moved:
        curve = curve_of(session, question, thresholds, moved)

    def tell() -> None:
        picture = curve.path.with_suffix(".png")
        plot_curve(picture, curve.points, f"{question.subject.title}; {question.settings.num_images:,} images a point")
        for line in curve.lines():
            say(line)
        say("\n".join(["", "protocol", *protocol_lines(curve.protocol), "", str(curve.path), str(picture)]))

    session.launch.ranks.on_main(tell)


def _thresholds(arguments: argparse.Namespace) -> Range | None:
    if arguments.truncation_curve is None:
        return None
    for option in ("truncation", "json"):
        if getattr(arguments, option) is not None:
            raise UsageError(f"--truncation-curve has thresholds and a file of its own; leave --{option} out")
    if arguments.record or any(map(is_result, arguments.what)):
        raise UsageError("--truncation-curve judges generators into RUN/curves; leave --record and .json files out")
    thresholds = Range.parse(arguments.truncation_curve)
    if arguments.protocol is not None:
        PROTOCOLS.get(arguments.protocol).require({"truncation": str(thresholds.truncations[0])})
    return thresholds


def read_options(arguments: argparse.Namespace) -> Options:
    """Return what a command line asks for.

    Raises:
        UsageError: an option cannot be read, or contradicts the protocol.
    """
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}: give at least 1")
    for option, path in (("--json", arguments.json), ("--export-real", arguments.export_real)):
        if path is not None and path.is_dir():  # which an empty word is, too
            raise UsageError(f"{option} {path} is a folder; name a file")
    return Options(
        real=arguments.real,
        split=arguments.split,
        metrics=None if arguments.metrics is None else tuple(map(str.strip, arguments.metrics.split(","))),
        num_images=None if arguments.num is None else _count("--num", arguments.num),
        batch_images=None if arguments.batch is None else _batch(arguments.batch),
        truncation=None if arguments.truncation is None else Truncation.parse(arguments.truncation),
        seed=arguments.seed,
        num_seeds=arguments.seeds,
        standing=None if arguments.standing is None else standing_of(arguments.standing),
        choice=Choice(arguments.checkpoint, arguments.by, arguments.average),
        cache=arguments.cache,
        resize=arguments.resize,
        per_class=arguments.per_class,
        weights=WeightStore(() if arguments.weights is None else (arguments.weights,), arguments.offline),
        protocol=None if arguments.protocol is None else PROTOCOLS.get(arguments.protocol),
    )


def _tell(judgements: Sequence[Judgement], out: Path | None) -> None:
    for line in tables(judgements):
        say(line)
    shown: list[list[str]] = []
    for judgement in judgements:
        lines = list(protocol_lines(judgement.protocol))
        if lines not in shown:
            shown.append(lines)
            say(f"\nprotocol {judgement.protocol_name}")
            say("\n".join(lines))
    if out is not None:
        write_results(out, judgements)
        say(f"\n{out}")


@contextmanager
def _bar(launch: Launch, question: Question, times: int) -> Iterator[Callable[[int], object]]:
    """Show how far the first rank is, on a terminal."""
    total = question.settings.num_images * times
    is_shown = None if launch.ranks.is_main else True  # None: on a terminal only
    with tqdm(total=total, unit=" images", desc=question.subject.label, disable=is_shown, leave=False) as bar:
        yield lambda num_images: bar.update(min(num_images * launch.ranks.world, total - bar.n))


def _count(option: str, text: str) -> int:
    try:
        return int(str(parse_count(text)))
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}; write for example 50k") from error


def _batch(text: str) -> int:
    images = _count("--batch", text)
    check_batch("--batch", text, images)
    return images
