"""`bigtrain replay`: the turn that an alarm names is played again, and its first value that is not finite is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bigtrain.cli import main
from bigtrain.engine import faults
from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.checkpoints.files import read_checkpoint
from bigtrain.engine.ranks import Ranks
from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks
from tests.training.toy_runs import enter, toy_overrides

STOPPED = ("total_images=96",)


def spoilt(ranks: Ranks, overrides: list[str], fault: str) -> int:
    """Train through the door with a fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.VARIABLE, fault)
        return enter(ranks, overrides)


def replayed(ranks: Ranks, words: list[str], fault: str = "") -> tuple[int, str]:
    """Run the verb; return its status and what it says."""
    import contextlib
    import io

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        patch.setenv(faults.VARIABLE, fault)
        status = main(["replay", *words])
    return status, out.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run_folder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of two micro-batches each; in the sixth (80 images) the second one of the discriminator's is NaN."""
    folder = tmp_path_factory.mktemp("replay") / "run"
    overrides = toy_overrides(digits, folder, *STOPPED, "max_micro_batch_images=8", "log.every_images=16")
    assert run_ranks(1, spoilt, overrides, "nan@data:22") == [0]
    return folder


def alarm_of(folder: Path) -> dict[str, Any]:
    (alarm,) = [event for event in read_log(folder / "log.jsonl") if event["event"] == "alarm"]
    return alarm


def test_a_spoilt_batch_is_named_with_its_samples(run_folder: Path) -> None:
    alarm, before = alarm_of(run_folder), files_of(run_folder)
    assert alarm["images_seen"] == 80
    words = [str(run_folder), "--at", "80", "--turn", alarm["turn"], "--salt", str(alarm["salt"])]
    # From the checkpoint after 64 images the step in between reads four micro-batches.
    ((status, said),) = run_ranks(1, replayed, words, "nan@data:6")
    assert status == 5, said
    _, second = alarm["samples_by_rank"][0]
    assert all(f"sample {number}: shard " in said for number in second[:8])
    assert not any(f"sample {number}:" in said for number in alarm["samples_by_rank"][0][0])
    assert "checkpoint 64, 1 step(s) trained forward" in said
    assert files_of(run_folder) == before


def test_a_healthy_turn_is_finite_and_is_the_one_that_was_played(run_folder: Path) -> None:
    ((status, said),) = run_ranks(1, replayed, [str(run_folder), "--at", "64", "--turn", "generator"])
    assert status == 0, said
    assert "all finite" in said
    lines = {line["images_seen"]: line for line in read_log(run_folder / "log.jsonl") if line["event"] == "status"}
    loss = next(float(line.split()[1]) for line in said.splitlines() if line.startswith("loss_generator"))
    assert loss == pytest.approx(lines[80]["loss_generator"], rel=1e-5)


def with_weight(folder: Path, name: str, value: float, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a run and put a value into one tensor of its newest checkpoint."""
    shutil.copytree(folder, target)
    path = max((target / "checkpoints").glob("0*"))
    checkpoint = read_checkpoint(path)
    tensors = {key: tensor.clone() for key, tensor in checkpoint.tensors.items()}
    tensors[name].view(-1)[0] = value
    shutil.rmtree(target / "checkpoints")
    # Such a checkpoint is not written any more, and may be there from before.
    monkeypatch.setattr("bigtrain.engine.checkpoints.checkpoint._refuse_not_finite", lambda tensors: None)
    Checkpoints(target / "checkpoints", Ranks.single()).save(checkpoint.images, tensors, checkpoint.record)
    return target


@pytest.mark.parametrize(
    ("name", "value", "first"),
    [
        ("network/discriminator.linear.bias", float("nan"), "discriminator.linear "),
        ("network/generator.blocks.1.conv2.bias", 3e38, "generator.blocks.2.bn1 (ConditionalBatchNorm)"),
    ],
)
def test_a_bad_weight_is_traced_to_its_module(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float, first: str
) -> None:
    name = name.replace(".", "/", 1)
    folder = with_weight(run_folder, name, value, tmp_path / "run", monkeypatch)
    ((status, said),) = run_ranks(1, replayed, [str(folder), "--at", "96", "--turn", "discriminator"])
    assert status == 5, said
    (line,) = [line for line in said.splitlines() if line.startswith("first module")]
    assert first in line, said
    assert ("weights before the turn" in said) == (value != value)


def test_what_is_not_there_is_refused(run_folder: Path) -> None:
    for words, status, sentence in (
        (["--at", "70", "--turn", "generator"], 2, "no step of 16 images starts there; the one before: 64"),
        (["--at", "64", "--turn", "discriminator/r1"], 2, "it has discriminator/main, generator/main"),
        (["--at", "16", "--turn", "generator"], 4, "no checkpoint at or before 16 images; it has 96, 64"),
        (["--at", "96", "--turn", "generator", "--checkpoint", "80"], 4, "no checkpoint of 80 images at or before 96"),
        (["--at", "-32", "--turn", "generator"], 2, "--at -32: a step begins after 0"),
    ):
        ((found, said),) = run_ranks(1, replayed, [str(run_folder), *words])
        assert found == status, said
        assert sentence in said


def test_the_log_of_the_run_says_what_to_ask_for(run_folder: Path) -> None:
    assert {"images_seen", "turn", "salt", "samples_by_rank"} <= alarm_of(run_folder).keys()
    assert json.dumps(alarm_of(run_folder))
    assert torch.isfinite(torch.tensor(alarm_of(run_folder)["step"]))
