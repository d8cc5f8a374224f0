"""Evaluating beside a run, with real processes: each save once, every average, the figures that training would give."""

import contextlib
import io
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from bigtrain.cli import main
from bigtrain.engine.checkpoints.files import committed
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.processes.launch import start
from bigtrain.engine.processes.lease import Leases
from bigtrain.engine.processes.preemption import Preemption
from bigtrain.engine.ranks import Ranks
from bigtrain.evaluation.options import Options
from bigtrain.evaluation.session import Session
from bigtrain.evaluation.sources import sources
from bigtrain.evaluation.watch import Watcher, WatchOptions
from bigtrain.evaluation.watch_judge import WatchJudge
from bigtrain.evaluation.watch_starts import WatchStarts
from bigtrain.metrics.records import EvaluationRecord, read_records
from bigtrain.recipe.errors import BigtrainError, NoProgressError
from bigtrain.training.loaded import LoadedModel
from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks, start_ranks
from tests.training.toy_runs import enter, toy_overrides

AVERAGES = "ema=[{halflife_images: 100}, {halflife_images: 3000}]"
EVALUATE = (
    "evaluate={{every_images: {every}, num_images: 40, batch_images: 16, standing_batches: 1, standing_images: 16, "
    "kernel: {{subsets: 2, subset_size: 20}}, extractor: {{kind: random}}}}"
)
AT_THE_END_ONLY = EVALUATE.format(every="1G")
QUICK = WatchOptions(poll_s=0.1)


class SlowJudge(WatchJudge):
    """Takes its time, as one of many images does."""

    def judge(self, model: LoadedModel, between: Any) -> Any:
        time.sleep(0.4)
        return super().judge(model, between)


def watch(
    ranks: Ranks, run: Path, options: WatchOptions = QUICK, judge: Any = WatchJudge, num_images: int | None = None
) -> tuple[int, list[str]]:
    """Watch a run; return the status, and what was said."""
    launch = start("plain" if ranks.world == 1 else "ddp", 1)
    preemption, session = Preemption(launch.ranks), Session(Options(num_images=num_images), launch)
    session.between = preemption.give_way
    said: list[str] = []

    def say(words: str) -> None:
        said.append(words)
        (run.parent / f"{run.name}-said.txt").write_text("\n".join(said))  # for those who wait for it

    try:
        return Watcher(run, options, lambda model: judge(session, model), preemption, launch.ranks, say).run(), said
    except BigtrainError as error:
        return error.exit_status, [*said, str(error)]


def by_place(run: Path, by: str | None = None) -> dict[tuple[int, str], EvaluationRecord]:
    records = [record for record in read_records(run) if by in (None, record.by)]
    found = {(record.images_seen, record.average): record for record in records}
    assert len(found) == len(records), "two evaluations of one average at one moment"
    return found


def told(said: list[str]) -> Counter[str]:
    """Return how often each average of each moment was evaluated."""
    return Counter(line.split(": ", 1)[1].rsplit(": ", 1)[0] for line in said if "fd_random" in line)


@pytest.fixture(scope="module")
def evaluated(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that evaluated two averages at every checkpoint itself, and kept all of them."""
    run = tmp_path_factory.mktemp("watch") / "run"
    overrides = toy_overrides(
        digits, run, AVERAGES, EVALUATE.format(every=32), "checkpoint={every_images: 32, keep_last: 20}"
    )
    assert run_ranks(1, enter, overrides, hang_limit_s=240.0) == [0]
    return run


def copy_of(run: Path, target: Path, saves: Collection[int] | None = None) -> Path:
    """Return a copy of a run that nobody has evaluated; with some of its saves alone, which is quicker to judge."""
    shutil.copytree(run, target)
    shutil.rmtree(target / "evaluations")
    for images in committed(target / "checkpoints") if saves is not None else ():
        if images not in saves:
            shutil.rmtree(target / "checkpoints" / folder_name(images))
    return target


def test_figures_are_those_of_the_training_whatever_the_number_of_ranks(evaluated: Path, tmp_path: Path) -> None:
    everything = by_place(evaluated)
    assert len(everything) == 10
    theirs = {place: record for place, record in everything.items() if place[0] in (64, 160)}
    for world in (1, 2):
        run = copy_of(evaluated, tmp_path / f"{world}" / "run", (64, 160))
        shutil.copytree(evaluated.parent / "cache", run.parent / "cache")
        statuses = [status for status, _ in run_ranks(world, watch, run, hang_limit_s=240.0)]
        assert statuses == [0] * world
        ours = by_place(run)
        assert ours.keys() == theirs.keys()
        for place, record in ours.items():
            assert record.path.name == theirs[place].path.name, "the protocol is the training's"
            assert record.figures == pytest.approx(theirs[place].figures, rel=1e-9 if world == 1 else 1e-5)
            assert (record.by, record.salt) == ("watch", 0)


def test_a_watcher_has_nothing_to_do_where_the_training_did_it(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ((status, said),) = run_ranks(1, watch, run, WatchOptions(once=True, kind="checkpoints"))
    assert status == 0
    assert said[-1].endswith("all is evaluated, 0 of it by this watcher")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after == before, "a watcher writes evaluations and its lease, which is gone"


def test_every_save_of_a_run_is_evaluated_once_while_the_run_goes_on(digits: Path, tmp_path: Path) -> None:
    """The watcher is there first; it is slower than the run, whose retention waits for it."""
    run = tmp_path / "run"
    watcher = start_ranks(1, watch, run, QUICK, SlowJudge, hang_limit_s=240.0)
    watcher.wait_for(tmp_path / "run-said.txt")
    assert (tmp_path / "run-said.txt").read_text() == f"{run}: waiting: is not there yet"
    overrides = toy_overrides(
        digits, run, AVERAGES, AT_THE_END_ONLY, "checkpoint={every_images: 16, keep_unevaluated: 20}",
    )  # fmt: skip
    run.mkdir()
    (run / "watchers").mkdir()
    wait_until(lambda: list((run / "watchers").glob("*.json")))
    assert run_ranks(1, enter, overrides, hang_limit_s=240.0) == [0]
    ((status, said),) = watcher.results()
    assert status == 0, said
    at = range(16, 161, 16)
    records = by_place(run)
    assert records.keys() == {(images, average) for images in at for average in ("ema-100", "ema-3000")}
    assert set(by_place(run, "training")) == {(160, "ema-100"), (160, "ema-3000")}
    counts = told(said)
    assert set(counts.values()) == {1}
    assert len(counts) in (18, 20)  # the last ones may be the training's
    assert [event for event in read_log(run / "log.jsonl") if "given free" in event.get("reason", "")] == []
    assert len(committed(run / "checkpoints")) > 2, "they waited"


def wait_until(condition: Any, limit_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.02)


def test_a_watcher_that_is_too_slow_cannot_fill_the_disk(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "watchers").mkdir(parents=True)
    watcher = start_ranks(1, watch, run, QUICK, SlowJudge, hang_limit_s=240.0)
    wait_until(lambda: list((run / "watchers").glob("*.json")))
    overrides = toy_overrides(
        digits, run, AVERAGES, AT_THE_END_ONLY, "checkpoint={every_images: 16, keep_unevaluated: 2}",
        "total_images=320",
    )  # fmt: skip
    most = 0
    training = start_ranks(1, enter, overrides, hang_limit_s=240.0)
    while not (run / "status.json").exists() or "running" in (run / "status.json").read_text():
        most = max(most, len(committed(run / "checkpoints")))
        time.sleep(0.005)
    assert training.results() == [0]
    ((status, _),) = watcher.results()
    assert status == 0
    freed = [event["reason"] for event in read_log(run / "log.jsonl") if "given free" in event.get("reason", "")]
    evaluated_at = {record.images_seen for record in read_records(run)}
    assert 3 <= most <= 2 + 2 + 1 + 1, "the newest, those that wait, the one just saved, and a pin of the watchdog"
    assert freed
    assert "checkpoint.keep_unevaluated" in freed[0]
    assert {160 + 160, 304} <= evaluated_at
    assert len(evaluated_at) < 20


def test_a_killed_watcher_goes_on_where_it_was(evaluated: Path, tmp_path: Path) -> None:
    run = copy_of(evaluated, tmp_path / "run")
    watcher = start_ranks(1, watch, run, QUICK, SlowJudge, hang_limit_s=240.0)
    wait_until(lambda: len(read_records(run)) >= 3)
    watcher.signal(0, signal.SIGKILL)
    assert watcher.outcomes()[0].exit_status == -signal.SIGKILL
    done = {record.path: record.path.stat().st_mtime_ns for record in read_records(run)}
    assert 3 <= len(done) < 10
    ((status, said),) = run_ranks(1, watch, run)
    assert status == 0
    assert len(read_records(run)) == 10
    assert {path: path.stat().st_mtime_ns for path in done} == done, "what was done is not done again"
    assert sum(told(said).values()) == 10 - len(done)
    assert list((run / "watchers").glob("*")) == []


def started(job: str, restart: int) -> dict[str, str]:
    return {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart)}


def test_a_job_is_not_started_for_ever_without_an_evaluation(tmp_path: Path) -> None:
    for restart in (0, 1):
        WatchStarts(tmp_path, started("9", restart)).check(is_over=True)
    third = WatchStarts(tmp_path, started("9", 2))
    third.check(is_over=False)
    with pytest.raises(NoProgressError, match="3 starts of job 9 in a row wrote no evaluation"):
        third.check(is_over=True)  # it is not requeued
    with pytest.raises(NoProgressError):
        WatchStarts(tmp_path, started("9", 3)).check(is_over=False)  # SLURM has requeued it by itself
    third.note()
    third.check(is_over=True)
    WatchStarts(tmp_path, started("9", 5)).check(is_over=False)
    with pytest.raises(NoProgressError):
        WatchStarts(tmp_path, started("9", 5)).check(is_over=True)
    with pytest.raises(NoProgressError):
        WatchStarts(tmp_path, started("8", 2)).check(is_over=True)  # another job's evaluations are not this one's
    assert not list(Leases(tmp_path).living()), "a note is no lease"
    third.done()
    assert not list((tmp_path / "watchers").iterdir())
    by_hand = WatchStarts(tmp_path, {})
    by_hand.note()
    by_hand.check(is_over=True)
    assert not list((tmp_path / "watchers").iterdir())


def watch_in_a_job(ranks: Ranks, run: Path, restart: int) -> tuple[int, list[str]]:
    """Watch as the n-th restart of a SLURM job does."""
    os.environ.update(started("9", restart))
    return watch(ranks, run)


@pytest.mark.parametrize(("saves", "status"), [((), 7), ((64,), 75)])
def test_the_third_start_of_a_job_leaves_with_7_unless_it_wrote_an_evaluation(
    evaluated: Path, tmp_path: Path, saves: tuple[int, ...], status: int
) -> None:
    run = copy_of(evaluated, tmp_path / "run", saves)
    shutil.rmtree(run / "snapshots")
    (run / "status.json").unlink()  # not complete: the watcher waits for more
    watcher = start_ranks(1, watch_in_a_job, run, 2, hang_limit_s=240.0)
    wait_until(lambda: any("waiting: " in path.read_text() for path in tmp_path.glob("run-said.txt")))
    watcher.signal(0, signal.SIGUSR2)
    ((found, said),) = watcher.results()
    assert found == status
    assert ("wrote no evaluation" in said[-1]) == (status == 7)
    assert [path.name for path in (run / "watchers").iterdir()] == (["job-9.json"] if saves else [])


def test_a_polite_stop_leaves_with_75_and_no_lease(evaluated: Path, tmp_path: Path) -> None:
    run = copy_of(evaluated, tmp_path / "run")
    watcher = start_ranks(1, watch, run, QUICK, SlowJudge, hang_limit_s=240.0)
    wait_until(lambda: read_records(run))
    watcher.signal(0, signal.SIGUSR2)
    ((status, said),) = watcher.results()
    assert status == 75
    assert said[-1].endswith("start it again to go on")
    assert len(read_records(run)) < 10
    assert list((run / "watchers").glob("*")) == []


def test_two_protocols_are_watched_side_by_side(evaluated: Path, tmp_path: Path) -> None:
    run = copy_of(evaluated, tmp_path / "run", (64, 160))
    groups = [start_ranks(1, watch, run, QUICK, WatchJudge, each) for each in (None, 24)]
    assert [group.results()[0][0] for group in groups] == [0, 0]
    records = read_records(run)
    assert Counter(record.protocol["num_generated"] for record in records) == {40: 4, 24: 4}
    assert len({record.group for record in records}) == 2


def test_damaged_and_vanished_saves_cost_nothing_but_themselves(evaluated: Path, tmp_path: Path) -> None:
    run = copy_of(evaluated, tmp_path / "run")
    part = run / "checkpoints" / folder_name(64) / "part-001-of-001.safetensors"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    ((status, said),) = run_ranks(1, watch_while_one_vanishes, run, 96)
    assert status == 4
    assert "could not be evaluated after 64 images" in said[-1]
    assert any(
        "after 64 images: cannot be evaluated" in line and "was changed after it was written" in line for line in said
    )
    assert any("after 96 images: removed before it was evaluated" in line for line in said)
    assert {images for images, _ in by_place(run)} == {32, 128, 160}
    assert (run / "checkpoints" / folder_name(64)).is_dir(), "setting aside is for those who write the run"


def watch_while_one_vanishes(ranks: Ranks, run: Path, images: int) -> tuple[int, list[str]]:
    """Watch; one checkpoint is pruned between the look at the folder and the reading."""
    from bigtrain.evaluation import sources as module

    read = module.read_checkpoint

    def read_or_prune(path: Path) -> Any:
        if path.name == folder_name(images):
            path.rename(path.with_name(f".tmp-{path.name}"))
        return read(path)

    module.read_checkpoint = read_or_prune  # type: ignore[assignment]
    return watch(ranks, run)


def test_what_the_run_went_back_from_is_not_evaluated_and_does_not_count(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    assert [source.path.suffix for source in sources(run)] == ["", "", "", "", ".safetensors"]
    assert [source.images_seen for source in sources(run, "snapshots")] == [160]
    rollback = {"from_images": 170, "to_images": 96, "salt": 1, "reason": "bad"}
    (run / "checkpoints" / "rollbacks.json").write_text(json.dumps([rollback]))
    for images in (128, 160):
        shutil.rmtree(run / "checkpoints" / folder_name(images))
    assert [source.images_seen for source in sources(run)] == [32, 64, 96]
    assert sources(run, "snapshots") == []


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "watchers").touch()  # a file where the leases' folder would be
    ((status, said),) = run_ranks(1, watch, run)
    assert status == 2
    assert "cannot be written" in said[-1]


def test_once_needs_something_to_evaluate(tmp_path: Path) -> None:
    ((status, said),) = run_ranks(1, watch, tmp_path / "run", WatchOptions(once=True))
    assert status == 2
    assert "holds no checkpoint and no snapshot to evaluate" in said[-1]


def ask(ranks: Ranks, *words: str) -> tuple[int, str]:
    """Go through the door `bigtrain`; return the status and what was said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = main(list(words))
    return status, said.getvalue()


def test_the_verb_watches_with_the_options_of_an_evaluation(evaluated: Path, tmp_path: Path) -> None:
    run = copy_of(evaluated, tmp_path / "run")
    ((status, said),) = run_ranks(
        1, ask, "evaluate", str(run), "--watch", "--poll", "0.1", "--only", "snapshots", "--num", "24",
        "--average", "ema-3000",
    )  # fmt: skip
    assert status == 0, said
    ((place, record),) = by_place(run).items()
    assert place == (160, "ema-3000")
    assert record.protocol["num_generated"] == 24
    assert "after 160 images: ema-3000: fd_random" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "b", "--watch"], "--watch takes one run, and 2 are named"),
        (["a", "--watch", "--json", "x.json"], "leave --json out"),
        (["a", "--watch", "--checkpoint", "best"], "leave --checkpoint out"),
        (["a", "--watch", "--poll", "0"], "--poll 0: give seconds above 0"),
        (["a", "--watch", "--poll", "nan"], "--poll nan: give seconds above 0"),
        (["a", "--once"], "--once says when to end watching; add --watch"),
    ],
)
def test_options_that_say_something_else_than_to_watch_are_refused(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_of_runs_is_not_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ba":
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("name: x\n")
    assert main(["evaluate", str(tmp_path), "--watch", "--once"]) == 2
    names = f"{tmp_path}/a, {tmp_path}/b"
    assert f"{tmp_path} holds runs ({names}), and --watch takes one run; name one" in capsys.readouterr().err
    assert not (tmp_path / "watchers").exists()
