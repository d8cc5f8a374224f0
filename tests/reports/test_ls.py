"""`bigtrain ls`: one line a run, from the ends of files."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bigtrain import cli
from bigtrain.engine.processes.holder import HOLDER_FILE, Holder
from bigtrain.metrics.figures import is_higher_better
from bigtrain.reports.overview import find_runs, quick_overview
from bigtrain.reports.reading import HEAD_BYTES, TAIL_BYTES
from bigtrain.reports.state import SILENT_S, state_of

from .made_runs import (
    event,
    make_run,
    start,
    status,
    write_evaluation,
    write_json,
    write_log,
    write_recipe,
    write_starts,
)

NOW_S = 1_800_000_000.0


def held(folder: Path, holder: Holder, age_s: float = 0.0) -> None:
    """Let a process hold a folder that says it is running, its last beat `age_s` ago."""
    write_json(folder / "status.json", {"state": "running", "exit_status": None})
    write_json(folder / HOLDER_FILE, holder.__dict__)
    os.utime(folder / HOLDER_FILE, (NOW_S - age_s, NOW_S - age_s))


@pytest.mark.parametrize(
    ("exit_status", "word"),
    [(0, "complete"), (75, "preempted"), (5, "diverged"), (130, "interrupted"), (9, "failed"), (1, "failed")],
)
def test_an_ended_run_is_called_by_its_exit_status(tmp_path: Path, exit_status: int, word: str) -> None:
    write_json(tmp_path / "status.json", {"state": "so it ended", "exit_status": exit_status})
    found = state_of(tmp_path, [])
    assert (found.word, found.sentence) == (word, "so it ended")


def test_a_run_is_dead_when_its_process_is_gone(tmp_path: Path) -> None:
    own = Holder.own()
    held(tmp_path, own)
    assert state_of(tmp_path, [], NOW_S).word == "running"
    held(tmp_path, replace(own, start_ticks=own.start_ticks + 1))  # the number was given to another process since
    assert state_of(tmp_path, [], NOW_S).word == "dead"
    (tmp_path / HOLDER_FILE).unlink()
    assert state_of(tmp_path, [], NOW_S).word == "dead"


def test_a_run_on_another_host_is_dead_when_it_is_silent(tmp_path: Path) -> None:
    elsewhere = replace(Holder.own(), host=f"not-{socket.gethostname()}", pid=2**22 + 1)
    held(tmp_path, elsewhere, age_s=SILENT_S - 1)
    assert state_of(tmp_path, [], NOW_S).word == "running"
    held(tmp_path, elsewhere, age_s=SILENT_S + 1)
    found = state_of(tmp_path, [], NOW_S)
    assert found.word == "dead"
    assert "has been silent for 121 s" in found.sentence
    killed = [{"ended": "was killed (exit status 137)"}]
    assert state_of(tmp_path, killed, NOW_S).sentence == "was killed (exit status 137)"


def test_a_run_in_a_line(tmp_path: Path) -> None:
    found = quick_overview(make_run(tmp_path / "a", "biggan", world=4))
    assert (found.name, found.state.word, found.images_seen, found.total_images) == ("biggan", "complete", 64000, 64000)
    assert (found.images_per_s, found.left_s, found.num_starts, found.num_preempted) == (100.0, 0.0, 2, 1)
    assert found.best is not None
    assert (found.best.name, found.best.value, found.best.images_seen) == ("fd_classifier", 0.75, 64000)
    assert found.best.protocol == "fd-1"
    assert found.gpu_hours == pytest.approx(640 * 4 / 3600)  # 640 s on 4 GPUs
    assert not found.is_about


def test_gpu_hours_go_by_the_processes_of_each_start(tmp_path: Path) -> None:
    write_log(tmp_path, [start(2), status(36000), start(8, kind="resumed", images=36000), status(72000)])
    assert quick_overview(tmp_path).gpu_hours == pytest.approx(0.1 * 2 + 0.1 * 8)
    write_log(tmp_path, [start(2, device="cpu"), status(36000)])
    found = quick_overview(tmp_path)
    assert (found.gpu_hours, found.device_hours) == (None, pytest.approx(0.2))


def test_time_left_is_at_the_newest_rate(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "status.json").unlink()
    write_log(tmp_path, [start(), status(16000)])
    found = quick_overview(tmp_path)
    assert (found.state.word, found.left_s) == ("not started", 480.0)


def test_a_long_log_is_not_read_whole(tmp_path: Path) -> None:
    filler = b"x" * 100_000_000  # no line of it is an event
    first = json.dumps(start(2)).encode() + b"\n" + b"y" * HEAD_BYTES + b"\n"
    last = b"\n" + json.dumps(status(36000)).encode() + b"\n"
    with (tmp_path / "log.jsonl").open("wb") as stream:
        stream.write(first)
        stream.truncate(len(filler) * 100)  # 10 GB, nearly all of it a hole
        stream.seek(0, os.SEEK_END)
        stream.write(b"z" * TAIL_BYTES + last)
    found = quick_overview(tmp_path)
    assert (found.images_seen, found.gpu_hours) == (36000, pytest.approx(0.2))
    write_starts(tmp_path, 75, None)
    assert quick_overview(tmp_path).is_about


def test_runs_are_found_in_folders_of_folders_but_not_in_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "b")
    make_run(tmp_path / "sweep" / "a")
    make_run(tmp_path / "b" / "inside")
    make_run(tmp_path / ".hidden")
    write_recipe(tmp_path)  # a project's own, beside its runs
    assert list(find_runs(tmp_path)) == [tmp_path / "b", tmp_path / "sweep" / "a"]


def test_figures_of_other_protocols_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", "one")
    make_run(tmp_path / "b", "two")
    write_evaluation(tmp_path / "b", 64001, {"fid": 3.0}, name="fid-2")
    write_log(tmp_path / "c", [event("start", 0), {"event": 3}, event("status", 640)])
    write_json(tmp_path / "c" / "status.json", {"state": "failed: no space <left>", "exit_status": 10})
    assert cli.main(["ls", str(tmp_path)]) == 0
    head, one, two, three, *notes = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "run",
        "state",
        "images",
        "of",
        "images/s",
        "left",
        "best",
        "figure",
        "preempted",
        "GPU",
        "h",
    ]
    assert "fd_classifier 0.75 at 64,000 [1]" in one
    assert "fid 3 at 64,001 [2]" in two
    assert three.split() == ["c", "failed", "640", *"-----"[:4], "0", "-"]
    assert notes == [
        "[1] by fd-1",
        "[2] by fid-2",
        "figures with different marks do not compare: their protocols differ",
        "c: failed: no space <left>",
    ]


def test_scores_are_better_when_higher_and_distances_when_lower() -> None:
    names = ("is_classifier", "inception_score", "precision", "fid", "kd_classifier", "fid_same_size")
    assert [name for name in names if is_higher_better(name)] == ["is_classifier", "inception_score", "precision"]


def test_ls_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", "one")
    assert cli.main(["ls", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["state"], found["best"]["value"], found["preempted"]) == ("one", "complete", 0.75, 1)


def test_nothing_to_list_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ls", str(tmp_path)]) == 2
    assert "there is no run in" in capsys.readouterr().err
    assert cli.main(["ls", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_listing_imports_no_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    code = f"import sys; from bigtrain import cli; cli.main(['ls', {str(tmp_path)!r}]); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False"
