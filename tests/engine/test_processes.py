"""A process is told from a later one with its number, and from one that has ended."""

import os
import time
from dataclasses import replace
from pathlib import Path

from bigtrain.engine.processes.identity import ProcessStamp
from tests.rank_pool import run_ranks


def test_this_process_is_alive_and_another_of_its_number_is_not():
    own = ProcessStamp.own()
    assert own.pid == os.getpid()
    assert own.start_ticks > 0
    assert own == ProcessStamp.own()
    assert own.is_alive_here
    assert not replace(own, start_ticks=own.start_ticks - 1).is_alive_here
    assert not replace(own, host="node7").is_alive_here


def stamps_of_a_child(ranks):
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    stamp = ProcessStamp.of(child)
    alive = stamp.is_alive_here
    os.kill(child, 9)
    while Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    unburied = stamp.is_alive_here
    os.waitpid(child, 0)
    return alive, unburied, stamp.is_alive_here


def test_a_process_that_ended_is_not_alive_also_before_its_parent_noticed():
    assert run_ranks(1, stamps_of_a_child) == [(True, False, False)]
