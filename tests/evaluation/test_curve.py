"""Truncation curves: one point a threshold, taken up where they were cut short, in a file, a table and a picture."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bigtrain.cli import main as command_line
from bigtrain.evaluation.curve import Range
from bigtrain.evaluation.plot import axes_of, plot_curve
from bigtrain.recipe.errors import BigtrainError
from tests.evaluation.test_evaluate import evaluate, faulty
from tests.rank_pool import RankFailed, run_ranks
from tests.training.toy_runs import as_json

CHEAP = ("--num", "40", "--standing", "1x32")


def curves(run: Path) -> list[Path]:
    """Return the files of a run's curves."""
    return sorted((run / "curves").glob("*.json"))


def draw(run: Path, thresholds: str, *words: Any) -> dict[str, Any]:
    """Draw a curve and return the one file that is there."""
    assert command_line(["evaluate", str(run), "--truncation-curve", thresholds, *CHEAP, *map(str, words)]) == 0
    (path,) = curves(run)
    return as_json(path)


@pytest.fixture
def run(toy_run: Path) -> Path:
    """The toy run without curves."""
    for path in (toy_run / "curves").glob("*"):
        path.unlink()
    return toy_run


def test_a_curve_has_a_point_a_threshold(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = draw(run, "resample:0.4:0.8:0.2")
    assert [point["truncation"] for point in record["points"]] == ["resample:0.4", "resample:0.6", "resample:0.8"]
    assert [point["threshold"] for point in record["points"]] == [0.4, 0.6, 0.8]
    assert (record["images_seen"], record["law"]) == (160, "resample")
    assert record["protocol"]["sampling"]["truncation"] == "resample:*"
    single = evaluate(tmp_path / "one.json", run, "--truncation", "resample:0.6", *CHEAP)
    assert single["figures"] == record["points"][1]["figures"]  # statistics stand anew at every threshold
    (path,) = curves(run)
    assert Image.open(path.with_suffix(".png")).size == (660, 484)
    out = capsys.readouterr().out
    assert "resample:0.4 " in out
    assert "fd_random_real_against_real" not in out.partition("protocol")[0]


def test_a_killed_curve_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(run, "resample:0.4:0.8:0.2")
    (path,) = curves(run)
    path.unlink()
    words = [str(run), "--truncation-curve", "resample:0.4:0.8:0.2", *CHEAP]
    with pytest.raises(RankFailed):
        run_ranks(1, faulty, words, "kill@evaluate:4")  # two batches a point: the second one of the second point
    assert as_json(path)["points"] == whole["points"][:1]
    begun = path.stat().st_mtime_ns
    assert [point["threshold"] for point in draw(run, "resample:0.4:0.4:1")["points"]] == [0.4]
    assert path.stat().st_mtime_ns == begun  # nothing was left to do
    assert draw(run, "resample:0.4:0.8:0.2") == whole
    more = draw(run, "resample:0.5:0.9:0.4")
    assert [point["threshold"] for point in more["points"]] == [0.4, 0.5, 0.6, 0.8, 0.9]


def test_a_curve_of_weights_that_the_run_went_back_from_begins_anew(run: Path) -> None:
    whole = draw(run, "std:1:1:1")
    assert whole["salt"] == 0
    (path,) = curves(run)
    left = [{**point, "figures": {"fd_random": 0.0}} for point in whole["points"]]
    path.write_text(json.dumps({**whole, "salt": 1, "points": left}))
    assert draw(run, "std:1:1:1") == whole


def test_another_protocol_is_another_curve(run: Path) -> None:
    draw(run, "std:1:1:1")
    for words in (("--average", "ema-100"), ("--seed", "1"), ("--seeds", "2")):
        before = len(curves(run))
        assert command_line(["evaluate", str(run), "--truncation-curve", "std:1:1:1", *CHEAP, *words]) == 0
        assert len(curves(run)) == before + 1
    draw_other = ["evaluate", str(run), "--truncation-curve", "clamp:1:1:1", *CHEAP]
    assert command_line(draw_other) == 0
    assert len(curves(run)) == 5


def test_ranges() -> None:
    twenty = Range.parse("resample:0.05:2.0:0.05")
    assert len(twenty.truncations) == 40
    assert [str(each) for each in twenty.truncations[-2:]] == ["resample:1.95", "resample:2"]
    assert str(twenty.truncations[2]) == "resample:0.15"
    assert [str(each) for each in Range.parse("psi:-0.5:0.5:0.5:8").truncations] == [
        "psi:-0.5:8",
        "psi:0:8",
        "psi:0.5:8",
    ]
    assert Range.parse("psi:0:1:0.5:8").shown == "psi:*:8"
    for text in ("resample", "resample:1:2", "resample:2:1:0.1", "resample:1:2:0", "resample:1:2:1e-9", "none:1:2:1",
                 "resample:0:1:0.5", "resmaple:1:2:1", "std:1:2:1:3", "psi:0:1:nan"):  # fmt: skip
        with pytest.raises(BigtrainError):
            Range.parse(text)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--truncation", "std:1"], "leave --truncation out"),
        (["--json", "x.json"], "leave --json out"),
        (["--record"], "leave --record and .json files out"),
    ],
)
def test_a_curve_has_a_file_of_its_own(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert command_line(["evaluate", str(run), "--truncation-curve", "std:1:1:1", *CHEAP, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_damaged_curve_is_not_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(run, "std:1:1:1")
    (path,) = curves(run)
    path.write_text("{")
    assert command_line(["evaluate", str(run), "--truncation-curve", "std:1:1:1", *CHEAP]) == 6
    assert "is no truncation curve" in capsys.readouterr().err
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    ("more", "axes"),
    [
        ({"inception_score": 9.0, "precision": 0.5, "recall": 0.4}, ("fid", "inception_score")),
        ({"precision": 0.5, "recall": 0.4}, ("fid", "recall")),
        ({}, ("fid", None)),
    ],
)
def test_pictures_of_whatever_figures_there_are(tmp_path: Path, more: dict[str, float], axes: tuple[str, Any]) -> None:
    points = [
        {"threshold": t, "truncation": f"std:{t}", "figures": {"fid": 3 / t, "fid_real_against_real": 1.0, **more}}
        for t in (0.5, 1.0)
    ]
    assert axes_of(points) == axes
    plot_curve(tmp_path / "curve.png", points, "a run")
    assert Image.open(tmp_path / "curve.png").size == ((1100, 484) if more else (660, 484))
    scores_first = [point | {"figures": {**more, **point["figures"]}} for point in points]
    assert axes_of(scores_first) == axes
    assert axes_of([{"figures": {"precision": 0.5}}]) == ("precision", None)
