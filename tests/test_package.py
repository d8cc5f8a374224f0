"""What is installed, from what, and that set-up happens once."""

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
SHIM = """#!/usr/bin/env bash
# Stands for an environment's python: installs nothing, but writes down what it was asked to install.
case "$*" in
    "-m pip install"*) echo "${@: -1}" >>"$LOG" ;;
    *sys.prefix*) echo "$VIRTUAL_ENV" ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def requirements():
    """Return every requirement, extras included, by name."""
    lines = PROJECT["project"]["dependencies"] + sum(PROJECT["project"]["optional-dependencies"].values(), [])
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def constraints():
    """Return the tested versions by name."""
    lines = (CHECKOUT / "tools" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_promised_floors_and_extras():
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert str(requirements()["torch"].specifier) == ">=2.11"
    assert {"deepspeed", "wandb", "test", "dev"} <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_console_script_is_there():
    module, _, name = PROJECT["project"]["scripts"]["bigtrain"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_every_tested_version_is_an_allowed_one():
    for name, version in constraints().items():
        wanted = requirements().get(name)
        assert wanted is None or wanted.specifier.contains(version), f"{name} {version} against {wanted}"


def test_every_direct_dependency_has_a_tested_version():
    direct = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    assert direct <= constraints().keys()


@pytest.mark.parametrize("folder", ["recipes", "slurm"])
def test_folders_that_ship_in_the_wheel_hold_something(folder):
    target = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"][folder]
    assert target == f"bigtrain/shipped/{folder}"
    assert any(path.is_file() for path in (CHECKOUT / folder).iterdir())  # git keeps no empty folder


def test_templates_of_reports_are_in_the_package_and_not_ignored():
    there = {path.name for path in (CHECKOUT / "bigtrain" / "reports" / "templates").iterdir()}
    assert {"report.html", "report.css", "report.js"} <= there
    ignored = (CHECKOUT / ".gitignore").read_text(encoding="utf-8").split()  # the wheel leaves out what git ignores
    assert not [line for line in ignored if line.endswith((".html", ".css", ".js")) or "templates" in line]


@pytest.mark.parametrize(
    "script", sorted([*CHECKOUT.glob("tools/*.sh"), CHECKOUT / ".ci" / "run"]), ids=lambda p: p.name
)
def test_scripts_are_sound_bash(script):
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def set_up(tmp_path):
    """Set up a copy of the checkout's metadata in a pretended environment; return what pip was asked to install."""
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    shutil.copytree(CHECKOUT / "tools", checkout / "tools")
    shutil.copy(CHECKOUT / "pyproject.toml", checkout)
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").write_text(SHIM)
    (environment / "bin" / "python").chmod(0o755)
    log = tmp_path / "log"

    def run(*extras):
        log.write_text("")
        variables = {
            **os.environ,
            "VIRTUAL_ENV": str(environment),
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "LOG": str(log),
            "REAL_PYTHON": sys.executable,
        }
        command = f"source {checkout}/tools/environment.sh && set_up_environment {' '.join(extras)}"
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, env=variables, capture_output=True)
        return [line.removeprefix(str(checkout)) for line in log.read_text().splitlines()]

    run.checkout = checkout
    return run


def test_set_up_installs_once(set_up):
    assert set_up() == [""]
    assert set_up() == []


def test_a_new_extra_is_added_to_those_that_were_asked_for(set_up):
    assert set_up("test") == ["[test]"]
    assert set_up() == []
    assert set_up("wandb") == ["[test,wandb]"]
    assert set_up("test,wandb") == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "tools/constraints.txt"])
def test_changed_requirements_are_installed_again(set_up, changed):
    set_up("test")
    with (set_up.checkout / changed).open("a") as file:
        file.write("# changed\n")
    assert set_up("test") == ["[test]"]
    assert set_up("test") == []
