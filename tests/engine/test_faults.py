"""The fault kit: what is armed happens at the visit it is armed for, and nothing else does."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from bigtrain.engine import faults
from bigtrain.recipe.errors import UsageError


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    faults.arm("", 0)


def test_a_fault_happens_at_its_visit_of_its_site_and_rank_alone():
    faults.arm("enospc@checkpoint.write:2,rank=1; exception@step:1", rank=1)
    faults.reach("checkpoint.write")
    with pytest.raises(OSError, match="No space left") as raised:
        faults.reach("checkpoint.write")
    assert raised.value.errno == 28
    faults.reach("checkpoint.write")
    with pytest.raises(faults.InjectedFaultError):
        faults.reach("step")

    faults.arm("eio@load:1,rank=1", rank=0)
    faults.reach("load")


def test_values_and_bytes_are_spoiled_at_their_visit():
    faults.arm("nan@data:2;flip@checkpoint.write:1", rank=0)
    whole = torch.ones(2, 3)
    assert faults.spoil("data", whole) is whole
    spoiled = faults.spoil("data", whole)
    assert spoiled.isnan().all()
    assert spoiled.shape == whole.shape
    assert faults.spoil("data", whole) is whole

    content = memoryview(b"abcdef")
    changed = faults.spoil_bytes("checkpoint.write", content)
    different = [place for place in range(6) if changed[place] != content[place]]
    assert len(different) == 1
    assert (changed[different[0]] ^ content[different[0]]).bit_count() == 1
    assert faults.spoil_bytes("checkpoint.write", content) is content


def test_nothing_happens_unarmed():
    faults.arm("", rank=0)
    for site in faults.SITES:
        faults.reach(site)
    assert faults.spoil("data", torch.ones(1)).item() == 1


@pytest.mark.parametrize(("kind", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_a_process_ends_or_stands_still(kind, number):
    code = f"from bigtrain.engine import faults; faults.arm('{kind}@step:1', 0); faults.reach('step'); print('alive')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    if kind == "stop":
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == number
        process.kill()
        os.waitpid(process.pid, 0)
    else:
        assert os.WTERMSIG(status) == number
    assert "alive" not in process.stdout.read()


@pytest.mark.parametrize(
    "text", ["kill", "kill@step", "kill@step:0", "burn@step:1", "kill@nowhere:1", "kill@step:1,rank=x", "kill@step:one"]
)
def test_a_fault_that_is_none_is_refused_with_what_there_is(text):
    with pytest.raises(UsageError, match=r"is not <kind>@<site>.*kill.*checkpoint\.rename.*correct or unset it"):
        faults.arm(text, 0)
