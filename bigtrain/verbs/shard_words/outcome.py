"""What the words that pack images say at their end: what became of them, and why some were left out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bigtrain.cli import say
from bigtrain.data.pack import PackOptions, PackReport
from bigtrain.verbs.shard_words.arguments import classes_line, summary

LISTED_REJECTIONS = 20
LISTED_REASONS = 5
LISTED_SIZES = 4


def tell(folder: Path, options: PackOptions, report: PackReport) -> None:
    """Say what was written into a folder."""
    if report.taken_up:
        say(f"{report.taken_up} shards were finished by an earlier run and have been taken up")
    for rejection in report.rejections[:LISTED_REJECTIONS]:
        say(f"left out: {rejection.path} {rejection.reason}")
    if len(report.rejections) > LISTED_REJECTIONS:
        say(f"left out: {len(report.rejections) - LISTED_REJECTIONS} more files that cannot be used")
    for note in report.notes:
        say(f"note: {note}")
    for name, value in _table(options, report):
        say(f"{name:<13} {value}")
    say(summary(folder, report.index))
    say(classes_line(report.index))


def _table(options: PackOptions, report: PackReport) -> Iterator[tuple[str, str]]:
    index = report.index
    yield (
        "images" if index.pairing == "none" else "pairs",
        f"{index.num_samples} of {index.num_samples + len(report.rejections)}",
    )
    if index.num_unlabelled:
        yield "unlabelled", f"{index.num_unlabelled} of these images have no label; classes: {len(index.classes)}"
    common = Counter(report.sizes).most_common(LISTED_SIZES)
    more = f" and {len(report.sizes) - LISTED_SIZES} other sizes" if len(report.sizes) > LISTED_SIZES else ""
    yield "source sizes", ", ".join(f"{size} ({number})" for size, number in common) + more
    if report.enlarged:
        height, width = options.size
        wanted = f"{height}" if height == width else f"{width}x{height}"
        yield "enlarged", f"{report.enlarged} images were smaller than {wanted} pixels"
    if report.duplicates:
        one = report.duplicates[0]
        done = "left out" if options.duplicates == "drop" else "kept; --duplicates drop leaves them out"
        torn = sum(not duplicate.same_label for duplicate in report.duplicates)
        yield (
            "duplicates",
            f"{len(report.duplicates)} ({done}), such as {one.path}, which equals {one.first}"
            + (f"; {torn} have another label than the first" if torn else ""),
        )
    for reason, number in Counter(rejection.reason for rejection in report.rejections).most_common(LISTED_REASONS):
        yield "rejected", f"{number}: the image {reason}"
    if report.other_files:
        kinds = [f"{number} {suffix or 'without suffix'}" for suffix, number in sorted(report.other_files.items())]
        yield "no images", ", ".join(kinds)
    yield "bytes", f"{sum(entry.bytes for entry in index.shards)} in {len(index.shards)} shards"
