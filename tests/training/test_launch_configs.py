"""The shipped configuration files of `accelerate launch`: accepted by Accelerate, and starting what they say."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from bigtrain.recipe.shipped import shipped_folder, shipped_recipes
from tests.training.toy_runs import RECIPE, as_json, toy_overrides

CHECKOUT = Path(__file__).parents[2]
CONFIGS = shipped_folder("recipes") / "accelerate"
HANG_LIMIT_S = 400  # two launched ranks need about 15 s on a quiet machine
MACHINES = {
    "one-gpu": (1, 1),
    "cpu": (1, 2),
    "eight-gpu": (1, 8),
    "zero1": (1, 8),
    "zero2": (1, 8),
    "multi-node": (2, 16),
}


def test_every_way_to_start_has_a_file_and_none_is_taken_for_a_recipe():
    assert {path.stem for path in CONFIGS.iterdir()} == MACHINES.keys()
    assert not MACHINES.keys() & set(shipped_recipes())


@pytest.mark.parametrize("name", MACHINES)
def test_accelerate_accepts_it_and_leaves_the_recipe_its_choices(name):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))  # refuses unknown keys
    assert isinstance(config, ClusterConfig)
    assert (config.num_machines, config.num_processes) == MACHINES[name]
    # Precision, compilation and the engine are the recipe's.
    assert (config.mixed_precision, config.dynamo_config) == ("no", {})
    assert (config.deepspeed_config, config.fsdp_config) == ({}, {})


@pytest.mark.parametrize("name", MACHINES)
def test_the_launcher_takes_the_way_that_starts_as_many_processes(name):
    words = ["--config_file", str(CONFIGS / f"{name}.yaml"), "-m", "bigtrain.train", "RECIPE"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    # `multi_gpu` is the way by torchrun; all others start one process, whatever num_processes says.
    assert arguments.multi_gpu == (MACHINES[name][1] > 1)
    assert not arguments.use_deepspeed
    assert not arguments.use_fsdp
    assert not arguments.cpu


@pytest.mark.parametrize("name", MACHINES)
def test_its_comment_shows_how_it_is_used(name):
    path = CONFIGS / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert f"--config_file recipes/accelerate/{name}.yaml" in text
    assert all(isinstance(value, str | int | bool) for value in yaml.safe_load(text).values())
    assert yaml.safe_load(text)["mixed_precision"] == "no"  # unquoted, YAML reads false


def launch(name: str, options: list[str], overrides: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    command += ["--config_file", str(CONFIGS / f"{name}.yaml"), *options, "-m", "bigtrain.train", str(RECIPE)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [*command, *overrides], cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.two_process
def test_the_cpu_file_really_starts_two_processes(digits, tmp_path):
    process = launch("cpu", [], toy_overrides(digits, tmp_path, "engine=ddp", "total_images=32"))
    out, err = process.communicate(timeout=HANG_LIMIT_S)
    assert process.returncode == 0, out + err
    assert "2 process(es) x 8 images x 1 micro-batch(es) on cpu" in out
    assert as_json(tmp_path / "status.json")["state"] == "complete"


@pytest.mark.slow
@pytest.mark.two_process
def test_the_multi_node_file_joins_two_launchers(digits, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    overrides = toy_overrides(digits, tmp_path, "engine=ddp", "total_images=32")
    options = ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    machines = [launch("multi-node", [*options, "--machine_rank", str(rank)], overrides) for rank in (0, 1)]
    said = [machine.communicate(timeout=HANG_LIMIT_S) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert "2 process(es) x 8 images x 1 micro-batch(es) on cpu" in said[0][0]


@pytest.mark.slow
def test_the_one_gpu_file_starts_one_process(digits, tmp_path):
    process = launch("one-gpu", [], toy_overrides(digits, tmp_path, "engine=plain", "total_images=32"))
    out, err = process.communicate(timeout=HANG_LIMIT_S)
    assert process.returncode == 0, out + err
    assert "1 process(es) x 16 images x 1 micro-batch(es)" in out
