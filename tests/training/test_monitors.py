"""Each way of collapsing is flagged at its first bad figure, and series of healthy runs raise nothing."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from bigtrain.training.health.monitors import WINDOW, Monitors
from bigtrain.training.health.watchdog import WatchdogSettings

HEALTHY = Path(__file__).parent / "healthy_runs.json"  # see its key `about`
ONSET = 30


def healthy_series() -> dict[str, dict[str, list[float]]]:
    """Return for each recorded run its figures by name, one value a log period."""
    series: dict[str, dict[str, list[float]]] = json.loads(HEALTHY.read_text())["runs"]
    return series


RUNS = sorted(healthy_series())


def findings(series: dict[str, list[float]], monitors: Monitors | None = None) -> list[tuple[int, str, str]]:
    """Feed series, period by period; return (period, monitor, figure) of what was found."""
    monitors = monitors or Monitors(WatchdogSettings())
    found = []
    for period in range(max(map(len, series.values()))):
        figures = {name: values[period] for name, values in series.items() if period < len(values)}
        found += [(period, finding.monitor, finding.figure) for finding in monitors.see(figures)]
    return found


@pytest.mark.parametrize("run", RUNS)
def test_healthy_runs_raise_no_alarm(run: str) -> None:
    series = healthy_series()[run]
    assert all(len(values) >= 40 for values in series.values())
    assert findings(series) == []


def from_onset(change: Callable[[float], float]) -> Callable[[list[float]], list[float]]:
    return lambda values: [*values[:ONSET], *(change(value) for value in values[ONSET:])]


def loss_falls_then_jumps(values: list[float]) -> list[float]:
    """The discriminator wins slowly, which is normal, and then loses at once."""
    falling = [values[0] * 0.8**period for period in range(ONSET)]
    return [*falling, *(values[0] for _ in values[ONSET:])]


COLLAPSES: dict[str, tuple[str, Callable[[list[float]], list[float]]]] = {
    "diversity": ("diversity", from_onset(lambda value: value * 1e-3)),
    "singular_values": ("singular", from_onset(lambda value: value * 10)),
    "loss_jump": ("critic", loss_falls_then_jumps),
    "loss_explosion": ("loss", from_onset(lambda value: value * -1e4)),
}


def has(run: str, kind: str) -> bool:
    return any(name.partition("/")[0] == kind for name in healthy_series()[run])


@pytest.mark.parametrize(
    ("run", "monitor"), [(run, monitor) for monitor, (kind, _) in COLLAPSES.items() for run in RUNS if has(run, kind)]
)
def test_a_collapse_is_flagged_at_its_onset_once_and_nothing_else_is(run: str, monitor: str) -> None:
    kind, collapse = COLLAPSES[monitor]
    series = healthy_series()[run]
    name = next(name for name in series if name.partition("/")[0] == kind)
    series[name] = collapse(series[name])[: ONSET + WINDOW - 1]
    assert findings(series) == [(ONSET, monitor, name)]


def test_an_evaluation_twice_as_bad_is_flagged_and_a_slow_rise_below_it_is_not() -> None:
    assert findings({"evaluation/a": [80.0, 40.0, 20.0, 30.0, 39.0]}) == []
    assert findings({"evaluation/a": [80.0, 40.0, 20.0, 41.0, 90.0]}) == [(3, "evaluation", "evaluation/a")]
    assert findings({"evaluation/a": [80.0, 20.0], "evaluation/b": [0.1, 0.1]}) == []


def test_a_figure_that_is_not_finite_is_flagged_at_once() -> None:
    assert findings({"singular/generator.linear.weight/1": [1.0, math.inf]})[0][:2] == (1, "singular_values")
    assert findings({"diversity": [math.nan]})[0][:2] == (0, "diversity")


def test_what_stays_bad_becomes_normal_in_the_end_and_a_relapse_is_reported_again() -> None:
    name = "singular/generator.linear.weight/1"
    assert findings({name: [1.0] * 20 + [9.0] * 15 + [1.0] * 5 + [9.0]}) == [
        (20, "singular_values", name),
        (40, "singular_values", name),
    ]
    assert findings({name: [1.0] * 20 + [9.0] * 60}) == [(20, "singular_values", name)]


def test_the_first_periods_are_not_judged() -> None:
    assert findings({"diversity": [1e-3, 0.5, 1e-3, 0.4, 1e-3]}) == []


@pytest.mark.parametrize("stop", [3, ONSET, ONSET + 1])
def test_monitors_go_on_where_they_stopped(stop: int) -> None:
    series = healthy_series()[RUNS[0]]
    name = "diversity"
    series[name] = from_onset(lambda value: value * 1e-3)(series[name])
    whole = Monitors(WatchdogSettings())
    expected = findings(series, whole)
    first = Monitors(WatchdogSettings())
    found = findings({key: values[:stop] for key, values in series.items()}, first)
    again = Monitors(WatchdogSettings())
    again.load_record(json.loads(json.dumps(first.record())))
    found += [(period + stop, *rest) for period, *rest in findings({k: v[stop:] for k, v in series.items()}, again)]
    assert found == expected
    assert again.record() == whole.record()
