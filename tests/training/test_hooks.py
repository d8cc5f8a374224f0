"""Hooks of a real toy run: figures, files, what a full disk costs, which checkpoints stay."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bigtrain.cli import main as command_line
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import EXIT_REQUEUE, BigtrainError, DivergenceError, StoppedError
from bigtrain.recipe.progress import Progress
from bigtrain.training.hooks import status
from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks
from tests.training.toy_runs import as_json, enter, play, status_lines, toy_overrides

EVALUATE = (
    "evaluate={every_images: 32, num_images: 40, batch_images: 16, standing_batches: 1, standing_images: 16, "
    "kernel: {subsets: 2, subset_size: 20}, extractor: {kind: classifier, shown_images: 1000}}"
)
STANDARD = {
    "loss_discriminator", "loss_generator", "gradient_norm_discriminator", "gradient_norm_generator", "sign_real",
    "sign_heldout", "reals_shown", "kimg",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run of ten steps on two ranks, evaluated after every second one, that keeps its best checkpoint."""
    folder = tmp_path_factory.mktemp("hooks") / "run"
    overrides = toy_overrides(
        digits, folder, EVALUATE, "checkpoint={every_images: 32, keep_best: 1}",
        "samples={every_images: 64, columns: 3}",
        "snapshots.every_images=64", "log={every_images: 48, tensorboard: true}",
    )  # fmt: skip
    assert run_ranks(2, enter, [*overrides, "engine=ddp"]) == [0, 0]
    return folder


def make_status_where_one_gives_way(ranks: Ranks) -> int:
    """Have a stop end the copying of held-out shards on rank 1 alone; return how the hook leaves."""

    def load(run: SimpleNamespace) -> list[object]:
        if ranks.rank == 1:
            raise StoppedError("stopped by SIGTERM")
        return []

    status._heldout_batches = load
    run = SimpleNamespace(
        recipe=SimpleNamespace(log=SimpleNamespace(every_images=1)),
        progress=Progress(),
        feed=SimpleNamespace(wait_s=0),
        launch=SimpleNamespace(ranks=ranks),
    )
    try:
        status.Status(run, status.ProgressBar())
    except BigtrainError as stop:
        return stop.exit_status
    return 0


def test_a_stop_while_held_out_images_come_is_met_by_all_ranks() -> None:
    assert run_ranks(2, make_status_where_one_gives_way) == [EXIT_REQUEUE] * 2


def test_every_status_line_has_the_standard_figures(evaluated_run: Path) -> None:
    lines = status_lines(evaluated_run)
    assert [line["images_seen"] for line in lines] == [48, 96, 144, 160]
    assert all(line.keys() >= STANDARD for line in lines)
    assert lines[-1]["reals_shown"] >= 160


def test_files_are_named_after_images_seen(evaluated_run: Path) -> None:
    assert sorted(path.name for path in (evaluated_run / "samples").iterdir()) == [
        "000000000064.png", "000000000128.png", "000000000160.png",
    ]  # fmt: skip
    assert len(list((evaluated_run / "snapshots").iterdir())) == 3
    assert list((evaluated_run / "tensorboard").glob("events.*"))
    assert as_json(evaluated_run / "status.json") == {
        "state": "complete", "exit_status": 0, "images_seen": 160, "step": 10,
    }  # fmt: skip


def test_evaluations_are_logged_and_kept_with_their_protocol(evaluated_run: Path) -> None:
    events = [event for event in read_log(evaluated_run / "log.jsonl") if event["event"] == "evaluation"]
    assert [event["images_seen"] for event in events] == [32, 64, 96, 128, 160]
    for event in events:
        record = as_json(evaluated_run / "evaluations" / f"{event['images_seen']:012d}-{event['protocol']}.json")
        assert record["figures"]["fd_classifier"] == pytest.approx(event["fd_classifier"], rel=1e-6)
        assert record["protocol"]["sampling"]["average"] == "ema-3000"
        assert event["fd_classifier_real_against_real"] < event["fd_classifier_same_size"]


def test_all_kinds_of_metrics_in_one_evaluation(digits: Path, tmp_path: Path) -> None:
    kinds = ("fd_classifier", "kd_classifier", "is_classifier", "prdc_classifier", "fd_random")
    metrics = [*kinds, "fd_classifier_per_class", "fd_classifier_infinity"]
    evaluate = EVALUATE.replace("every_images: 32", f"every_images: 160, metrics: [{', '.join(metrics)}]")
    assert run_ranks(2, enter, [*toy_overrides(digits, tmp_path / "run", evaluate), "engine=ddp"]) == [0, 0]
    (event,) = [event for event in read_log(tmp_path / "run" / "log.jsonl") if event["event"] == "evaluation"]
    prdc = {"precision", "recall", "density", "coverage"}
    assert event.keys() >= (set(metrics) - {"prdc_classifier"}) | prdc | {"fd_classifier_per_class_worst"}
    (path,) = (tmp_path / "run" / "evaluations").iterdir()
    record = as_json(path)
    assert set(record["details"]["fd_classifier_per_class"]) == set("0123456789")
    assert len(record["details"]["fd_classifier_infinity"]) == 10
    assert record["protocol"]["metrics"] == metrics
    assert command_line(["evaluate", str(tmp_path / "run"), "--json", str(tmp_path / "offline.json")]) == 0
    offline = as_json(tmp_path / "offline.json")
    assert offline["figures"] == record["figures"]
    assert offline["details"] == record["details"]
    assert offline["protocol"] == record["protocol"]


def test_the_best_checkpoint_stays_beside_the_newest(evaluated_run: Path) -> None:
    figures = {
        event["images_seen"]: event["fd_classifier"]
        for event in read_log(evaluated_run / "log.jsonl")
        if event["event"] == "evaluation"
    }
    kept = {int(path.name) for path in (evaluated_run / "checkpoints").iterdir()}
    best = min(figures, key=lambda images: figures[images])
    assert {128, 160, best} <= kept
    pins = {int(path.parent.name): path.read_text() for path in (evaluated_run / "checkpoints").glob("*/PINNED")}
    assert {images for images, reason in pins.items() if reason.startswith("best")} == {best}
    assert pins.keys() <= {best, 128, 160}  # the watchdog's pins move along with the newest ones


def lose_the_disk(ranks: Ranks, overrides: list[str]) -> int:
    """Train while every picture meets a full disk."""
    from bigtrain.training.hooks import samples

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    samples.save_png = full  # type: ignore[assignment]
    return play(ranks, overrides).steps


def test_a_full_disk_costs_the_picture_not_the_run(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, "samples={every_images: 64, columns: 2}")
    assert run_ranks(2, lose_the_disk, overrides) == [10, 10]
    reasons = [event["reason"] for event in read_log(tmp_path / "log.jsonl") if event["event"] == "alarm"]
    assert len(reasons) == 3
    assert all("a grid of samples could not be written" in reason for reason in reasons)


def diverge_on_main(ranks: Ranks, overrides: list[str]) -> str:
    """Train while rank 0's picture shows that the generator diverged; return what this rank ends with."""
    from bigtrain.training.hooks import samples

    def diverged(*arguments: object) -> None:
        raise DivergenceError("the generator has diverged")

    samples.grid = diverged  # type: ignore[assignment]
    try:
        play(ranks, overrides)
    except Exception as error:
        return f"{getattr(error, 'exit_status', None)}: {error}"
    return "went on"


def test_what_ends_the_main_process_ends_all_ranks_with_its_status(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, "samples={every_images: 64, columns: 2}")
    first, second = run_ranks(2, diverge_on_main, overrides)
    assert first.startswith("5: the generator has diverged")
    assert second.startswith("5: rank 0")


def kill_before_the_first_checkpoint(ranks: Ranks, overrides: list[str]) -> None:
    """Die in the fourth step, after a status line."""
    from bigtrain.training import run as module

    inner = module.Run.end_step

    def end_step(run: module.Run) -> None:
        inner(run)
        if run.progress.steps == 4:
            os._exit(9)

    module.Run.end_step = end_step  # type: ignore[method-assign]
    play(ranks, overrides)


def test_a_start_after_a_kill_before_the_first_checkpoint_repeats_no_line(digits: Path, tmp_path: Path) -> None:
    from tests.rank_pool import start_ranks

    overrides = toy_overrides(digits, tmp_path, "checkpoint.every_images=100k")
    assert start_ranks(1, kill_before_the_first_checkpoint, overrides).outcomes()[0].exit_status == 9
    assert [line["images_seen"] for line in status_lines(tmp_path)] == [48]
    run_ranks(1, play, overrides)
    assert [line["images_seen"] for line in status_lines(tmp_path)] == [48, 96, 144, 160]


def test_loading_a_model_imports_no_accelerate() -> None:
    code = "import sys, bigtrain.training.loaded; sys.exit('accelerate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
