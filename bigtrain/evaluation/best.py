"""Which evaluation of a run is best by a figure, and what is still there of the weights that it judged.

Evaluations are told apart by protocol: figures of two protocols are ranked one beside the other, never together. How
they rank is in `metrics/records.py`. Nothing here imports torch.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigtrain.engine.checkpoints.names import MANIFEST, folder_name
from bigtrain.engine.checkpoints.rollbacks import present_records
from bigtrain.metrics.figures import PUBLISHED, is_higher_better, own_figure
from bigtrain.metrics.records import EvaluationRecord, best_record, choose_group, groups_of, name_of, names_of
from bigtrain.recipe.errors import UsageError
from bigtrain.recipe.registry import nearest
from bigtrain.reports.evaluations import RANKING_KEYS
from bigtrain.reports.reading import read_recipe

COUNTS = (("num_generated", "generated"), ("num_real", "real"))  # of a protocol


@dataclass(frozen=True)
class Standing:
    """The evaluations of a run by one protocol that have a figure, and the best of them."""

    run_folder: Path
    protocol: str
    """Its name, as the name of its first file has it."""
    figure: str
    records: tuple[EvaluationRecord, ...]
    """By images seen."""
    best: EvaluationRecord

    @property
    def kept(self) -> list[EvaluationRecord]:
        """Those whose weights are still there."""
        return [record for record in self.records if weights_of(self.run_folder, record) is not None]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "protocol": self.protocol,
            "names": names_of(self.records),
            "figure": self.figure,
            "best": self._entry(self.best),
            "evaluations": [self._entry(record) for record in self.records],
            "facts": self.best.protocol,
        }

    def _entry(self, record: EvaluationRecord) -> dict[str, Any]:
        weights = weights_of(self.run_folder, record)
        return {
            "images_seen": record.images_seen,
            "average": record.average,
            "by": record.by,
            "figures": record.figures,
            "weights": None if weights is None else str(weights),
        }


def standings(
    run_folder: Path, figure: str | None = None, average: str | None = None, protocol: str | None = None
) -> list[Standing]:
    """Return how a run's evaluations rank, one standing a protocol; first that by which the run itself is ranked, then
    those that were evaluated last.

    Args:
        run_folder: of the run.
        figure: to rank by; None: the one that the run's own recipe ranks by.
        average: of which moving average; None: of all.
        protocol: name of a protocol as in files' names, of any average, or the beginning of it; None: all.

    Raises:
        UsageError: there are no such evaluations; the sentence says what there is, or the nearest name.
    """
    if not run_folder.is_dir():
        raise UsageError(f"{run_folder} is no run folder; name one, such as runs/NAME")
    records = present_records(run_folder)
    if not records:
        raise UsageError(
            f"{run_folder} has no evaluations; give its recipe an `evaluate` section, or run bigtrain evaluate "
            f"{run_folder} --watch"
        )
    wanted = figure or _own_figure(run_folder, records)
    figures = list(dict.fromkeys(name for record in records for name in record.figures))
    _refuse_unknown("--by", wanted, figures, run_folder)
    if average is not None:
        _refuse_unknown("--average", average, sorted({record.average for record in records}), run_folder)
        records = [record for record in records if record.average == average]
    ranked_by = next((record.group for record in choose_group(records, wanted)), None)
    groups = groups_of(record for record in records if wanted in record.figures)
    if protocol is not None:
        names = [name for group in groups.values() for name in names_of(group).values()]
        if not any(name.startswith(protocol) for name in names):
            _refuse_unknown("--protocol", protocol, names, run_folder)
        groups = {key: group for key, group in groups.items() if _is_named(group, protocol)}
    found = [_standing(run_folder, wanted, group) for group in groups.values()]
    if not found:
        raise UsageError(f"{run_folder} has no evaluation of {average} by {wanted}; leave --average out")
    return sorted(found, key=lambda each: (each.best.group == ranked_by, each.records[-1].images_seen), reverse=True)


def _is_named(group: Sequence[EvaluationRecord], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in names_of(group).values())


def weights_of(run_folder: Path, record: EvaluationRecord) -> Path | None:
    """Return the snapshot or else the checkpoint of the weights that an evaluation judged; None where both are gone."""
    snapshot = run_folder / "snapshots" / f"{record.images_seen:012d}.safetensors"
    if snapshot.is_file() and _salt_of(snapshot) == record.salt:
        return snapshot
    checkpoint = run_folder / "checkpoints" / folder_name(record.images_seen)
    return checkpoint if (checkpoint / MANIFEST).is_file() else None


def only_standing(found: Sequence[Standing]) -> Standing:
    """Return the one standing, for those who want one answer.

    Raises:
        UsageError: there are several protocols, which do not compare.
    """
    if len(found) > 1:
        names = ", ".join(each.protocol for each in found)
        raise UsageError(
            f"{found[0].run_folder} was evaluated by {len(found)} protocols with {found[0].figure}, and their figures "
            f"do not compare; choose one with --protocol ({names})"
        )
    return found[0]


def best_weights(standing: Standing) -> Path:
    """Return the path of the weights that evaluated best.

    Raises:
        UsageError: they are gone; the sentence names the best that are there.
    """
    weights = weights_of(standing.run_folder, standing.best)
    if weights is not None:
        return weights
    kept = best_record(standing.kept, standing.figure)
    there = "none of those evaluated is" if kept is None else f"the best that is there is {_words(standing, kept)}"
    raise UsageError(
        f"{standing.run_folder}: the weights of {_words(standing, standing.best)} are gone, and {there}; keep the best "
        "with checkpoint.keep_best, or take --kept"
    )


def kept_only(standing: Standing) -> Standing:
    """Return the standing of those evaluations whose weights are still there.

    Raises:
        UsageError: there are none.
    """
    best = best_record(standing.kept, standing.figure)
    if best is None:
        raise UsageError(
            f"{standing.run_folder}: no checkpoint or snapshot that was evaluated by {standing.protocol} is there any "
            "more; keep the best with checkpoint.keep_best"
        )
    return Standing(standing.run_folder, standing.protocol, standing.figure, tuple(standing.kept), best)


def table(standing: Standing) -> Iterator[str]:
    """Yield a standing as lines: the protocol, its evaluations with the best one marked, and which one that is."""
    facts = standing.best.protocol
    counts = [f"{facts[key]:,} {noun}" for key, noun in COUNTS if key in facts]
    better = "higher" if is_higher_better(standing.figure) else "lower"
    images = f" ({', '.join(counts)} images)" if counts else ""
    yield f"{standing.protocol}{images}; {standing.figure}: {better} is better"
    names = names_of(standing.records)
    if len(names) > 1:
        yield "files: " + ", ".join(f"{average} *-{name}.json" for average, name in names.items())
    figures = [standing.figure, *(name for name in _main_figures(standing) if name != standing.figure)]
    rows = [["", "images", "average", *figures, "by", "weights"]]
    for record in standing.records:
        values = [f"{record.figures[name]:.4g}" if name in record.figures else "-" for name in figures]
        weights = weights_of(standing.run_folder, record)
        where = "-" if weights is None else weights.relative_to(standing.run_folder).parts[0].removesuffix("s")
        mark = "*" if record is standing.best else ""
        rows.append([mark, f"{record.images_seen:,}", record.average, *values, record.by, where])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    weights = weights_of(standing.run_folder, standing.best)
    yield f"best: {_words(standing, standing.best)}: {weights or 'neither checkpoint nor snapshot is there any more'}"


def _main_figures(standing: Standing) -> list[str]:
    """Return the names of the figures that rank, in the order of the files."""
    names = dict.fromkeys(name for record in standing.records for name in record.figures)
    endings = ("_std", "_same_size", "_real_against_real")
    return [
        name
        for name in names
        if name in PUBLISHED or (name[:3] in ("fd_", "kd_", "is_") and not name.endswith(endings))
    ]


def _words(standing: Standing, record: EvaluationRecord) -> str:
    value = f"{standing.figure} {record.figures[standing.figure]:.4g}"
    return f"{record.average} after {record.images_seen:,} images ({value})"


def _standing(run_folder: Path, figure: str, records: Sequence[EvaluationRecord]) -> Standing:
    best = best_record(records, figure)
    assert best is not None, "a group is made of records that have the figure"
    return Standing(run_folder, name_of(records), figure, tuple(records), best)


def _own_figure(run_folder: Path, records: Sequence[EvaluationRecord]) -> str:
    recipe = read_recipe(run_folder / "recipe.yaml", RANKING_KEYS)  # an empty one where it cannot be read
    newest_first = [record.figures for record in reversed(records)]
    return own_figure(recipe, newest_first) or next((name for figures in newest_first for name in figures), "")


def _refuse_unknown(option: str, name: str, known: Sequence[str], run_folder: Path) -> None:
    if name not in known:
        close = nearest(name, list(known))
        hint = f"did you mean '{close}'?" if close else f"there is {', '.join(known)}"
        raise UsageError(f"{option} {name}: {run_folder} has no evaluation of that name; {hint}")


def _salt_of(snapshot: Path) -> int | None:
    """Return the salt that a snapshot's metadata has, read without its tensors; None where it is damaged or none."""
    try:
        with snapshot.open("rb") as stream:  # safetensors: the header's length, and the header as JSON
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return int(json.loads(header["__metadata__"]["record"])["progress"]["salt"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return None
