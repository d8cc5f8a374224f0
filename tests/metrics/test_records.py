"""Evaluations on disk: what is read of a folder that several processes write, and how they rank."""

import json
from pathlib import Path
from typing import Any

import pytest

from bigtrain.metrics.figures import (
    badness,
    frechet_name,
    is_frechet,
    is_higher_better,
    own_figure,
    ranking_figures,
)
from bigtrain.metrics.names import FRECHET, METRICS, metric_name
from bigtrain.metrics.records import (
    EvaluationRecord,
    best_name,
    best_record,
    choose_group,
    groups_of,
    read_record,
    read_records,
    record_path,
)
from bigtrain.metrics.settings import EXTRACTORS


def protocol(average: str = "ema-1", num: int = 50, **more: Any) -> dict[str, Any]:
    return {"num_generated": num, "sampling": {"average": average, "truncation": "none"}, **more}


def put(run: Path, images: int, name: str, figures: dict[str, Any], facts: dict[str, Any], **more: Any) -> Path:
    path = record_path(run, images, name)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps({"images_seen": images, "figures": figures, "protocol": facts, **more}))
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = record_path(tmp_path, 64000, "fid-50-aa")
    record = EvaluationRecord(path, 64000, {"fid": 3.5}, protocol(), "ema-1", salt=2, by="watch", best_average="ema-2")
    path.parent.mkdir()
    path.write_bytes(record.render())
    assert path.name == "000000064000-fid-50-aa.json"
    assert read_record(path) == record


def test_a_file_from_before_there_were_watchers_is_the_trainings_own(tmp_path: Path) -> None:
    record = read_record(put(tmp_path, 10, "fid-50-aa", {"fid": 1.0}, protocol("ema-7")))
    assert record is not None
    assert (record.average, record.by, record.salt, record.best_average) == ("ema-7", "training", 0, None)


def test_the_name_of_a_papers_protocol_keeps_no_figures_apart(tmp_path: Path) -> None:
    plain, named = (
        read_record(put(tmp_path, images, "fid-50-aa", {"fid": 1.0}, protocol(**more)))
        for images, more in ((10, {}), (20, {"named": {"name": "adm"}}))
    )
    assert plain is not None
    assert named is not None
    assert plain.group == named.group


def test_what_is_no_evaluation_is_left_out(tmp_path: Path) -> None:
    good = put(tmp_path, 10, "fid-50-aa", {"fid": 1.0, "kid": float("nan"), "recall": None, "is": 10**400}, protocol())
    folder = good.parent
    (folder / "000000000020-fid-50-aa.json").write_text(good.read_text())  # images that its name denies
    (folder / "000000000030-fid-50-aa.json").write_text(good.read_text()[:40])
    (folder / "000000000040-fid-50-aa.json").write_text("[1]")
    (folder / "000000000050-fid-50-aa.json").write_bytes(b"\xff\xfe\x00")
    (folder / "notes.json").write_text("{}")
    (folder / ".000000000060-fid-50-aa.json.aside-1").write_text("")
    put(tmp_path, 70, "fid-50-aa", {"fid": 1.0}, {"sampling": None})
    put(tmp_path, 80, "fid-50-aa", {"fid": 1.0}, {})  # of no average
    (folder / "000000000090-fid-50-aa.json").mkdir()
    (folder / "000000000100-fid-50-aa.json").write_text("[" * 100_000)
    put(tmp_path, 110, "fid-50-aa", {"fid": 1.0}, protocol(), salt=float("inf"))
    records = read_records(tmp_path)
    assert [record.images_seen for record in records] == [10]
    assert records[0].figures == {"fid": 1.0}, "figures that are not finite rank nothing"
    assert read_records(tmp_path / "nowhere") == []


def test_protocols_differ_by_anything_but_average_and_versions(tmp_path: Path) -> None:
    put(tmp_path, 10, "fid-50-aa", {"fid": 1.0}, protocol("ema-1", versions={"torch": "1"}))
    put(tmp_path, 20, "fid-50-bb", {"fid": 1.0}, protocol("ema-2", versions={"torch": "2"}))
    put(tmp_path, 30, "fid-60-cc", {"fid": 1.0}, protocol("ema-1", num=60))
    put(tmp_path, 40, "fid-50-dd", {"fid": 1.0}, protocol("ema-1", seed=1))
    assert [[record.images_seen for record in group] for group in groups_of(read_records(tmp_path)).values()] == [
        [10, 20], [30], [40],
    ]  # fmt: skip


def test_higher_is_better_for_shares_and_lower_for_distances(tmp_path: Path) -> None:
    put(tmp_path, 10, "fid-50-aa", {"fid": 3.0, "recall": 0.5}, protocol())
    put(tmp_path, 20, "fid-50-aa", {"fid": 2.0, "recall": 0.4}, protocol())
    put(tmp_path, 30, "fid-50-aa", {"fid": 2.0}, protocol())
    records = read_records(tmp_path)
    best = {figure: best_record(records, figure) for figure in ("fid", "recall", "kid")}
    assert (best["fid"].images_seen, best["recall"].images_seen, best["kid"]) == (20, 10, None)
    figures = {"a": {"fid": 2.0, "precision": 0.1}, "b": {"fid": float("nan"), "precision": 0.9}, "c": {}}
    assert (best_name(figures, "fid"), best_name(figures, "precision"), best_name(figures, "kid")) == ("a", "b", None)


def test_the_trainings_own_newest_protocol_ranks_and_watchers_where_it_has_none(tmp_path: Path) -> None:
    put(tmp_path, 10, "fd_c-50-aa", {"fd_c": 1.0}, protocol(num=40))
    put(tmp_path, 20, "fd_c-60-bb", {"fd_c": 3.0}, protocol(num=60))
    put(tmp_path, 30, "fd_c-60-bb", {"fd_c": 2.0}, protocol(num=60), by="watch")  # between the training's own
    put(tmp_path, 40, "fd_c-70-cc", {"fd_c": 0.1}, protocol(num=70), by="watch")
    put(tmp_path, 40, "fid-50-dd", {"fid": 9.0}, protocol(num=50), by="watch")
    records = read_records(tmp_path)
    assert [record.images_seen for record in choose_group(records, "fd_c")] == [20, 30]
    assert [record.images_seen for record in choose_group(records, "fid")] == [40]
    assert list(choose_group(records, "kid")) == []


def test_a_recipe_says_which_figure_ranks_or_else_the_newest_evaluation_does() -> None:
    newest_first = [{"kid": 1.0, "fd_random_same_size": 1.0, "fd_random": 1.0}, {"fid": 1.0}]
    checkpoint = {"checkpoint": {"keep_best_by": "frechet"}}
    assert own_figure({"checkpoint": {"keep_best_by": "recall"}}, newest_first) == "recall"
    assert own_figure({**checkpoint, "evaluate": {"metrics": ["fid", "fd_random"]}}, newest_first) == "fid"
    inception = {"extractor": {"kind": "inception"}, "metrics": []}
    assert own_figure({**checkpoint, "evaluate": inception}, newest_first) == "fid"
    for nothing in ({**checkpoint, "evaluate": None}, {}, {"checkpoint": None, "evaluate": "off"}):
        assert own_figure(nothing, newest_first) == "fd_random"
    assert own_figure(checkpoint, []) is None


def test_names_of_figures_follow_from_the_metrics() -> None:
    names = ranking_figures(METRICS)
    assert {"fid", "kid", "inception_score", "precision", "recall", "density", "coverage"} < set(names)
    assert {"fd_classifier", "kd_classifier", "is_classifier", "fd_random", "kd_random"} < set(names)
    assert not {"is", "prdc_inception", "is_random"} & set(names)
    for kind in EXTRACTORS:
        assert frechet_name(kind) == metric_name(FRECHET, kind)
    higher = {name for name in names if is_higher_better(name)}
    assert higher == {"inception_score", "is_classifier", "precision", "recall", "density", "coverage"}
    assert badness("fid", 2.0) == pytest.approx(2.0)
    assert badness("recall", 0.25) == pytest.approx(-0.25)
    assert [is_frechet(name) for name in ("fid", "fd_random", "fd_random_same_size", "kid", "kd_random")] == [
        True, True, False, False, False,
    ]  # fmt: skip
