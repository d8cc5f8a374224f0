"""`bigtrain plan` on a machine without a GPU and without the data."""

import json
import subprocess

import pytest

from bigtrain import cli
from bigtrain.planning.sbatch import header_of
from bigtrain.recipe.shipped import shipped_folder
from bigtrain.verbs import plan

BIGGAN = "bigtrain:digits-biggan"
SMALL = ["batch_images=64", "batchnorm_images=16", "max_micro_batch_images=16", "total_images=1000", "engine=ddp"]
TEMPLATE = """#!/bin/bash
#SBATCH --job-name=bigtrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
##SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
##SBATCH --partition=NAME
printf '%s\\n' "$@"
"""


@pytest.fixture
def template(tmp_path, monkeypatch):
    """Put a template of two lines of script where the shipped one is looked for."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "train.sbatch").write_text(TEMPLATE)
    monkeypatch.setattr(plan, "shipped_folder", lambda name: tmp_path / name)


def test_it_tells_layout_memory_and_time(capsys, tmp_path):
    file = tmp_path / "plan.json"
    words = [BIGGAN, *SMALL, "--nodes", "1", "--gpus-per-node", "2", "--time", "1min", "--json", str(file)]
    assert cli.main(["plan", *words]) == 0
    printed = capsys.readouterr().out
    assert "on 1 node(s) x 2 GPU(s) = 2 process(es):" in printed
    assert "batch 64 images = micro-batch 16 x accumulation 2 x 2 process(es)" in printed
    assert "1 x 16, 2 x 16, 4 x 16, 8 x 8, 16 x 4, 32 x 2, 64 x 1\n" in printed
    found = json.loads(file.read_text())
    assert (found["world"], found["micro_images"], found["accumulation"], found["steps"]) == (2, 16, 2, 16)
    assert [4, 16] in found["layouts"]
    generator, discriminator = found["parameters"]["generator"], found["parameters"]["discriminator"]
    held = found["memory_bytes"]
    assert held["optimizer"] == 2 * held["gradients"] == 2 * 4 * (generator + discriminator)
    assert held["tensors"] == sum(held[row] for row in ("weights", "gradients", "optimizer", "averages", "activations"))
    # All in fp32: half of the H100's 67 TFLOP/s.
    step_s = found["gflop_per_image"] * 1e9 * 32 / (0.5 * 67e12)
    assert found["step_s"] == pytest.approx(step_s)
    assert found["hours"] == pytest.approx(16 * step_s / 3600)
    assert found["jobs"] == 1
    assert "fp32 (100% of them): 50% (assumed) of h100's 67 TFLOP/s" in printed


def test_stated_rates_are_used_and_said(capsys):
    assert cli.main(["plan", "bigtrain:digits-mlp", "--mfu", "0.1", "--peak-tflops", "2"]) == 0
    assert "fp32 (100% of them): 10% (--mfu) of --peak-tflops 2 TFLOP/s" in capsys.readouterr().out


def test_what_does_not_fit_the_gpu_is_said(capsys):
    words = ["game.generator.width=256", "batch_images=1024", "batchnorm_images=1024", "--gpu", "a100-40"]
    assert cli.main(["plan", BIGGAN, *words]) == 0
    assert "a100-40 has 40 GiB: does NOT fit: lower max_micro_batch_images" in capsys.readouterr().out


def test_a_world_that_does_not_fit_shows_those_that_do(capsys):
    assert cli.main(["plan", BIGGAN, *SMALL, "--gpus-per-node", "3"]) == 2
    printed = capsys.readouterr()
    assert "1 x 16, 2 x 16, 4 x 16, 8 x 8, 16 x 4, 32 x 2, 64 x 1\n" in printed.out
    assert printed.err.startswith("batch_images: 64 cannot be dealt to 3 process(es)")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([BIGGAN, "--gpus-per-node", "2"], "engine: plain runs in one process, but 1 x 2 GPUs are 2; add engine=ddp"),
        ([BIGGAN, "--nodes", "0"], "--nodes 0: write 1 or more"),
        ([BIGGAN, "--mfu", "25"], "--mfu 25.0: write a part of one, such as 0.25"),
        ([BIGGAN, "--time", "30s"], "--time 30s: a job has at least a minute; write a duration such as 24h"),
        ([BIGGAN, "--time", "soon"], "--time soon: not a duration"),
        ([BIGGAN, "--gpu", "h10"], "'h10' is not a known GPU; did you mean 'h100'?"),
        ([BIGGAN, "--gpu", "v100", "precision=bf16"], "--gpu v100 has no units for bf16"),
        ([BIGGAN, "sed=1"], "command line: sed: not a key of a recipe"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(capsys, words, sentence):
    assert cli.main(["plan", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(sentence)


def test_the_batch_script_asks_for_what_was_planned(template, capsys, tmp_path):
    file = tmp_path / "job.sbatch"
    run_words = ["bigtrain:digits-mlp", "engine=ddp", "run_dir=runs/it's mine"]
    words = [*run_words, "--nodes", "2", "--gpus-per-node", "4", "--time", "36h", "--partition", "gpu"]
    assert cli.main(["plan", *words, "--sbatch", str(file)]) == 0
    assert f"batch script: sbatch {file}\n" in capsys.readouterr().out
    assert header_of(file.read_text()) == {
        "job-name": "digits-mlp",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gpus-per-node": "4",
        "cpus-per-task": "2",  # one data worker and one more
        "time": "1-12:00:00",
        "partition": "gpu",
    }
    run = subprocess.run(["bash", file], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == run_words


def test_a_batch_script_of_ones_own_is_not_replaced_unasked(template, capsys, tmp_path):
    file = tmp_path / "job.sbatch"
    words = ["plan", "bigtrain:digits-mlp", "--sbatch", str(file)]
    file.write_text("mine")
    assert cli.main(words) == 2
    assert f"{file} is there and differs" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert cli.main([*words, "--force"]) == 0
    assert cli.main(words) == 0  # the same again


def test_the_shipped_template_can_be_filled_in(tmp_path, monkeypatch):
    shipped = shipped_folder("slurm") / "train.sbatch"
    if not shipped.is_file():
        pytest.skip(f"{shipped} does not exist")
    file = tmp_path / "job.sbatch"
    assert cli.main(["plan", "bigtrain:digits-mlp", "seed=3", "--time", "2h", "--sbatch", str(file)]) == 0
    subprocess.run(["bash", "-n", file], check=True)
    before, after = header_of(shipped.read_text()), header_of(file.read_text())
    assert (after["nodes"], after["gpus-per-node"], after["time"]) == ("1", "1", "0-02:00:00")
    assert before.keys() <= after.keys()  # what keeps a job alive is still there
    assert "set -- bigtrain:digits-mlp seed=3\n" in file.read_text()


@pytest.mark.parametrize("option", ["--json", "--sbatch"])
@pytest.mark.parametrize("target", [".", "", "no/such/x"])
def test_a_target_that_cannot_be_written_is_refused_before_the_plan(capsys, tmp_path, monkeypatch, option, target):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", "bigtrain:digits-mlp", option, target]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "name a" in printed.err
