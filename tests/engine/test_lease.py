"""Leases: who is at work beside a run, told from who was."""

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bigtrain.engine.processes.holder import Holder
from bigtrain.engine.processes.lease import Lease, Leases
from bigtrain.engine.ranks import Ranks
from tests.rank_pool import start_ranks


def put(run: Path, name: str, holder: Holder, **wants: object) -> Path:
    path = run / "watchers" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"holder": asdict(holder), **wants}))
    return path


def test_a_lease_says_what_its_holder_wants_and_goes_with_it(tmp_path: Path) -> None:
    with Lease(tmp_path, {"protocols": None}) as lease:
        ((holder, wants),) = Leases(tmp_path).living()
        assert (holder.pid, wants) == (os.getpid(), {"protocols": None})
        lease.say(protocols=["a"], given_up=[3])
        assert [wants for _, wants in Leases(tmp_path).living()] == [{"protocols": ["a"], "given_up": [3]}]
    assert Leases(tmp_path).living() == []
    assert list((tmp_path / "watchers").iterdir()) == []


def test_the_beat_moves_while_the_holder_lives(tmp_path: Path) -> None:
    import time

    with Lease(tmp_path, {}, beat_s=0.01) as lease:
        deadline_s = time.monotonic() + 60
        while json.loads(lease.path.read_text())["holder"]["beat"] < 3:
            assert time.monotonic() < deadline_s, "the beat stands still"
            time.sleep(0.01)


def hold_and_wait(ranks: Ranks, run: Path) -> None:
    """Hold a lease until killed."""
    with Lease(run, {}):
        (run / "held").touch()
        signal.pause()


def test_a_killed_holders_lease_is_dead_at_once_on_its_host_and_cleared_by_the_next(tmp_path: Path) -> None:
    group = start_ranks(1, hold_and_wait, tmp_path)
    group.wait_for(tmp_path / "held")
    assert len(Leases(tmp_path).living()) == 1
    group.signal(0, signal.SIGKILL)
    group.outcomes()
    assert Leases(tmp_path).living() == []
    assert len(list((tmp_path / "watchers").glob("*.json"))) == 1
    with Lease(tmp_path, {}) as lease:
        assert list((tmp_path / "watchers").glob("*.json")) == [lease.path]


def test_a_holder_elsewhere_is_dead_once_its_beat_stood_still_for_long(tmp_path: Path) -> None:
    far = replace(Holder.own(), host="elsewhere")
    put(tmp_path, "far", far)
    leases = Leases(tmp_path, silent_s=0.0)
    assert len(leases.living()) == 1, "nothing is known of it yet"
    assert leases.living() == []
    put(tmp_path, "far", replace(far, beat=7))
    assert len(leases.living()) == 1
    assert len(Leases(tmp_path, silent_s=1000.0).living()) == 1


def test_an_earlier_start_of_the_same_job_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = put(tmp_path, "before", replace(Holder.own(), host="elsewhere", restart="0"))
    other = put(tmp_path, "other", replace(Holder.own(), host="elsewhere", job="8", restart="0"))
    with Lease(tmp_path, {}):
        assert not before.exists()
        assert other.exists()


def test_what_is_no_lease_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "watchers"
    folder.mkdir()
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text("[]")
    (folder / "c.json").write_text('{"holder": {"pid": 1}}')
    (folder / "d.json").mkdir()
    assert Leases(tmp_path).living() == []
    with Lease(tmp_path, {}):
        assert len(Leases(tmp_path).living()) == 1
