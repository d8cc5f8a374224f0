"""What a run that skips damaged samples knows of them: how many there were, and whether they are too many.

Ranks read different samples, so they tell each other whenever figures are read and decide together. What is counted is
a function of the positions read, and is saved: a resumed run stops where one that was never stopped does.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bigtrain.data.batch import BadSample, Batch
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import DataError

BAD_SAMPLES = "bad_samples.jsonl"
RECENT_IMAGES = 10_000  # of the data order, among which damaged samples are counted


class Damage:
    """Counts damaged samples; `replaced`: all so far, on all ranks."""

    def __init__(self, max_fraction: float) -> None:
        self._most = max_fraction * RECENT_IMAGES
        self._fresh: list[tuple[int, BadSample]] = []
        self._recent: list[tuple[int, str]] = []
        self.replaced = 0

    def note(self, position: int, batches: Sequence[Batch]) -> None:
        """Keep what this rank met in the global batch at a position, until the ranks agree.

        Raises:
            DataError: what this rank alone met lately is too much.
        """
        self._fresh += [(position, bad) for batch in batches for bad in batch.bad]
        _refuse([bad.shard for at, bad in self._fresh if at > position - RECENT_IMAGES], self._most)

    def agree(self, ranks: Ranks, position: int) -> list[BadSample]:
        """Count what all ranks met before a position of the data order, and return it; collective."""
        # What lies behind the position was read for a step that was not played, and is read again.
        own = [(at, bad) for at, bad in self._fresh if at < position]
        self._fresh = []
        met = sorted((each for part in ranks.gather_objects(own) for each in part), key=lambda each: each[0])
        self.replaced += len(met)
        self._recent = [
            (at, shard)
            for at, shard in [*self._recent, *((at, bad.shard) for at, bad in met)]
            if at >= position - RECENT_IMAGES
        ]
        return [bad for _, bad in met]

    def refuse(self) -> None:
        """Stop all ranks where too much is damaged.

        Raises:
            DataError: more than the allowed share of the last images; names the worst shard.
        """
        _refuse([shard for _, shard in self._recent], self._most)

    def record(self) -> dict[str, Any]:
        """Return what a resume needs, as JSON."""
        return {"replaced": self.replaced, "recent": self._recent}

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Take up what `record` returned."""
        self.replaced, self._fresh = record["replaced"], []
        self._recent = [(at, shard) for at, shard in record["recent"]]


def _refuse(shards: Sequence[str], most: float) -> None:
    if len(shards) <= most:
        return
    worst, count = Counter(shards).most_common(1)[0]
    raise DataError(
        f"{len(shards)} of the last {RECENT_IMAGES:,} images were damaged, {count} of them in shard {worst}, where "
        f"data.max_bad_fraction allows {most:g}; `bigtrain shards check` finds them where there is an index: copy "
        "those shards again"
    )


def tell_of(met: Sequence[BadSample], folder: Path) -> None:
    """Append a line for each damaged sample that `bad_samples.jsonl` does not name yet.

    Raises:
        OSError: it cannot be written.
    """
    if not met:
        return
    path = folder / BAD_SAMPLES
    before = path.read_bytes() if path.exists() else b""
    told = {place for line in before.splitlines() if (place := _place(line)) is not None}
    fresh = {(bad.shard, bad.number): bad for bad in met if (bad.shard, bad.number) not in told}
    lines = "".join(json.dumps(asdict(bad)) + "\n" for bad in fresh.values())
    torn = before and not before.endswith(b"\n")  # by a kill
    with path.open("ab") as stream:
        stream.write((("\n" if torn else "") + lines).encode())


def _place(line: bytes) -> tuple[str, int] | None:
    """Return shard and number, since two sets have numbers of their own."""
    try:
        record = json.loads(line)
        return str(record["shard"]), int(record["number"])
    except (ValueError, TypeError, KeyError):
        return None
