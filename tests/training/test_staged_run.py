"""Runs whose shards are copied to the node's disk: equal to the run from the folder, and stopped while they wait."""

import os
import signal
import time

import pytest

from tests.data.staging.shard_server import serving
from tests.rank_pool import run_ranks, start_ranks
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import as_json, enter, toy_overrides

pytestmark = pytest.mark.two_process
HANG_LIMIT_S = 200.0
FEW = ("engine=ddp", "total_images=96", "checkpoint.every_images=32")


@pytest.fixture(scope="module")
def local_run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    assert run_ranks(2, enter, toy_overrides(digits, folder, *FEW), hang_limit_s=HANG_LIMIT_S) == [0, 0]
    return folder


def enter_on_node(ranks, overrides, disk):
    """Go through the door of training on a node that has a disk of its own for this job."""
    os.environ |= {"SLURM_TMPDIR": str(disk), "NO_PROXY": "127.0.0.1"}
    return enter(ranks, [*overrides, "data.cache_dir=$SLURM_TMPDIR/x"])


def end_on_node(ranks, overrides, disk):
    """End the process with the status of the door."""
    os._exit(enter_on_node(ranks, overrides, disk))


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_run_of_two_ranks_from_a_url_is_the_run_from_the_folder(digits, local_run, tmp_path, workers):
    with serving(digits) as server:
        overrides = toy_overrides(server.url, tmp_path / "run", *FEW, f"data.num_workers={workers}")
        assert run_ranks(2, enter_on_node, overrides, tmp_path / "node", hang_limit_s=HANG_LIMIT_S) == [0, 0]
        shards = {name: count for name, count in server.served.items() if name.endswith(".tar")}
    assert shards
    assert set(shards.values()) == {1}, shards
    assert_same_run(tmp_path / "run", local_run)
    assert "cache_dir: $SLURM_TMPDIR/x" in (tmp_path / "run" / "recipe.yaml").read_text()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stop_while_shards_are_waited_for_is_polite_and_the_next_node_goes_on(digits, local_run, tmp_path, workers):
    few = [word for word in FEW if "total" not in word]
    with serving(digits) as server:
        overrides = toy_overrides(server.url, tmp_path / "run", *few, f"data.num_workers={workers}", "data.holdout=0")
        overrides += ["total_images=96"]
        shards = [path.name for path in digits.glob("*.tar")]
        server.always = dict.fromkeys(shards, "stall")
        group = start_ranks(2, end_on_node, overrides, tmp_path / "node 1", hang_limit_s=HANG_LIMIT_S)
        end_s = time.monotonic() + HANG_LIMIT_S
        while not any(server.asked[name] for name in shards):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        group.signal(1, signal.SIGTERM)
        outcomes = group.outcomes()
        assert [outcome.exit_status for outcome in outcomes] == [75, 75], outcomes
        server.always = {}
        assert run_ranks(2, enter_on_node, overrides, tmp_path / "node 2", hang_limit_s=HANG_LIMIT_S) == [0, 0]
    assert as_json(tmp_path / "run" / "status.json")["exit_status"] == 0
