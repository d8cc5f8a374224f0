"""Figures with their protocols as JSON files, each written aside and renamed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigtrain.evaluation.judge import Judgement
from bigtrain.evaluation.subjects import Generator, Subject
from bigtrain.metrics.records import ASKED
from bigtrain.recipe.errors import DataError, UsageError
from bigtrain.sampling.files import written_aside

SEVERAL = "evaluations"  # under which a file keeps a list of them


def is_result(what: str) -> bool:
    """Tell whether a path is that of a file of figures."""
    return what.endswith(".json")


def write_results(path: Path, judgements: Sequence[Judgement]) -> None:
    """Write one evaluation as it is, several as a list under `evaluations`."""
    records = [judgement.record() for judgement in judgements]
    write_json(path, records[0] if len(records) == 1 else {SEVERAL: records})


def read_results(path: Path) -> list[Judgement]:
    """Return what `write_results`, or an evaluation while training, has written.

    Raises:
        DataError: the file is not there, or holds something else.
    """
    try:
        record = json.loads(path.read_text())
        records = record.get(SEVERAL, [record])
        return [Judgement.from_record(each, str(path)) for each in records]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file that --json has written") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no figures with their protocol; name a file that --json has written") from error


def write_in_run(subject: Subject, judgement: Judgement) -> Path:
    """Write RUN/evaluations/<images>-<protocol>.json and return its path.

    Raises:
        UsageError: the subject lies in no run.
    """
    if subject.run_folder is None or judgement.images_seen is None:
        raise UsageError(f"{subject.label} lies in no run folder to record in; write the figures with --json FILE")
    path = subject.run_folder / "evaluations" / f"{judgement.images_seen:012d}-{judgement.protocol_name}.json"
    facts = {"average": subject.model.average, "salt": subject.model.salt} if isinstance(subject, Generator) else {}
    write_json(path, {**judgement.record(), **facts, "by": ASKED})
    return path


def write_json(path: Path, record: Any) -> None:
    """Write JSON aside and rename it.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    try:
        with written_aside(path) as stream:
            stream.write((json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); name another place") from error
