"""The log: whole lines or none, cut back at a resume, null for what is not finite."""

import json
import os
from pathlib import Path

import pytest

from bigtrain.recipe.progress import Progress
from bigtrain.training.log import RunLog, read_log

PROGRESS = Progress(steps=2, images_seen=64)


def test_an_event_is_one_line_of_json_with_its_place(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", is_writer=True)
    log.event("status", PROGRESS, loss_generator=0.1, fid=float("nan"))
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert {key: found[key] for key in ("event", "step", "images_seen", "loss_generator", "fid")} == {
        "event": "status", "step": 2, "images_seen": 64, "loss_generator": 0.1, "fid": None,
    }  # fmt: skip
    assert found["time_s"] >= 0


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", is_writer=False)
    log.event("status", PROGRESS)
    assert log.offset() == 0
    assert not (tmp_path / "log.jsonl").exists()


def test_a_resume_cuts_back_to_the_offset_and_goes_on_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, is_writer=True)
    log.event("first", PROGRESS)
    offset = log.offset()
    log.event("lost", PROGRESS)
    again = RunLog(path, is_writer=True)
    again.resume_at(offset, time_before_s=100.0, images_seen=64)
    again.event("second", PROGRESS)
    first, second = read_log(path)
    assert (first["event"], second["event"]) == ("first", "second")
    assert second["time_s"] >= 100


def test_a_resume_keeps_what_was_said_of_the_save_it_starts_from(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, is_writer=True)
    log.event("status", PROGRESS)
    offset = log.offset()
    later = Progress(steps=3, images_seen=96)
    for event, progress in (
        ("checkpoint", PROGRESS),
        ("status", later),
        ("checkpoint", later),
        ("preempted", PROGRESS),
    ):
        log.event(event, progress)
    with path.open("a") as stream:
        stream.write('{"event": "cu')
    again = RunLog(path, is_writer=True)
    again.resume_at(offset, 0.0, images_seen=64)
    again.event("resumed", PROGRESS)
    assert [event["event"] for event in read_log(path)] == ["status", "checkpoint", "preempted", "resumed"]
    assert path.read_text().count("\n") == 4


@pytest.mark.filterwarnings("ignore:.*could not be written")
def test_a_full_disk_loses_events_but_tears_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, is_writer=True)
    log.event("before", PROGRESS)
    assert log._file is not None
    whole = log._file.fileno()
    spare = os.dup(whole)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, whole)  # every write to it fails with ENOSPC
    log._file.truncate = lambda size: None  # type: ignore[method-assign,assignment]  # a device has no length
    log.event("lost", PROGRESS)
    os.dup2(spare, whole)
    log.event("after", PROGRESS)
    assert [event["event"] for event in read_log(path)] == ["before", "after"]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    RunLog(path, is_writer=True).event("whole", PROGRESS)
    with path.open("a") as stream:
        stream.write('{"event": "cu')
    assert [event["event"] for event in read_log(path)] == ["whole"]
