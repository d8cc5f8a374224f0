"""Batch scripts from a template: the header that was asked for, the rest as it was."""

import subprocess

import pytest

from bigtrain.planning.sbatch import fill, header_of, slurm_time

TEMPLATE = """#!/usr/bin/env bash
# Edit: nodes, time.
#SBATCH --job-name=bigtrain
#SBATCH --nodes=1
#SBATCH --requeue
#SBATCH --time=24:00:00   # of one job
##SBATCH --gpus-per-node=1
##SBATCH --partition=NAME

set -eu
echo "$@"
"""


def test_values_are_replaced_where_they_stand_and_others_added_after_the_header():
    script = fill(TEMPLATE, {"nodes": "4", "time": "1-12:00:00", "gpus-per-node": "8", "mem": "0"}, ["r.yaml"])
    assert script.splitlines()[2:10] == [
        "#SBATCH --job-name=bigtrain",
        "#SBATCH --nodes=4",
        "#SBATCH --requeue",
        "#SBATCH --time=1-12:00:00",
        "#SBATCH --gpus-per-node=8",
        "##SBATCH --partition=NAME",
        "#SBATCH --mem=0",
        "",
    ]
    assert header_of(script) == {
        "job-name": "bigtrain",
        "nodes": "4",
        "requeue": "",
        "time": "1-12:00:00",
        "gpus-per-node": "8",
        "mem": "0",
    }
    assert script.endswith('\nset -eu\necho "$@"\n')


def test_the_words_reach_the_script_as_they_were_and_the_command_line_replaces_them(tmp_path):
    words = ["my recipes/a.yaml", "game.augment={kind: ada, target: 0.6}", "name=it's"]
    path = tmp_path / "job.sbatch"
    path.write_text(fill(TEMPLATE.replace('echo "$@"', 'printf "%s\\n" "$@"'), {}, words))
    subprocess.run(["bash", "-n", path], check=True)
    run = subprocess.run(["bash", path], check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == words
    other = subprocess.run(["bash", path, "b.yaml"], check=True, capture_output=True, text=True)
    assert other.stdout == "b.yaml\n"


def test_a_template_without_a_header_gets_one():
    assert fill("#!/bin/sh\ntrue\n", {"nodes": "2"}, ["r"]).splitlines()[:2] == ["#!/bin/sh", "#SBATCH --nodes=2"]


@pytest.mark.parametrize(
    ("limit_s", "text"), [(60, "0-00:01:00"), (86_400, "1-00:00:00"), (90_061.5, "1-01:01:02"), (5400, "0-01:30:00")]
)
def test_time_limits_are_written_as_slurm_reads_them(limit_s, text):
    assert slurm_time(limit_s) == text
