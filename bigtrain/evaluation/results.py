"""Figures with their protocols as JSON files, each written aside and renamed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigtrain.evaluation.judge import Judgement
from bigtrain.evaluation.subjects import Generator, Subject
from bigtrain.metrics.evaluation import Evaluator
from bigtrain.metrics.records import ASKED, read_record, record_path
from bigtrain.metrics.reference import write_moments
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

    What training or a watcher has written of the same weights under the same protocol stays as it is.

    Raises:
        UsageError: the subject lies in no run.
    """
    if not isinstance(subject, Generator) or subject.run_folder is None:
        raise UsageError(f"{subject.label} lies in no run folder to record in; write the figures with --json FILE")
    path = record_path(subject.run_folder, subject.images_seen, judgement.protocol_name)
    there = read_record(path)
    if there is not None and there.by != ASKED and there.salt == subject.model.salt:
        return path
    facts = {"average": subject.model.average, "salt": subject.model.salt, "by": ASKED}
    write_json(path, {**judgement.record(), **facts})
    return path


def write_real(path: Path, evaluator: Evaluator) -> None:
    """Write mean and covariance of the real images, in the features of the main metric, as other tools read them.

    Raises:
        UsageError: no metric has needed them.
        DataError: the file cannot be written.
    """
    extractor = evaluator.settings.measured[0].extractor
    law = evaluator.reference(extractor)
    if law is None:
        raise UsageError(f"no metric needs moments of {extractor} features; name a Frechet distance first in --metrics")
    try:
        write_moments(path, law)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); name another place") from error


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
