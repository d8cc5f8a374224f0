"""The batch scripts themselves: their options, and what they do after each end of training, with SLURM's commands
played by small scripts."""

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.slurm.cluster import CHECKOUT

TEMPLATES = sorted((CHECKOUT / "slurm").glob("*.sbatch"))
TRAINING = [path for path in TEMPLATES if path.name in ("train.sbatch", "array.sbatch")]
OPTION = re.compile(r"^##?SBATCH --[a-z-]+(=\S+)?$")
SAME = "# ---- the rest is the same"
LIMIT_S = 60.0

PLAYED = {
    "srun": 'printf "%s\\n" "$@" >srun.words; trap "touch got-USR2; exit 75" USR2\n'
    'touch started; n=0; while [ "$SRUN_WAITS" ] && [ $n -lt 300 ]; do sleep 0.1; n=$((n+1)); done; exit "$SRUN"',
    "python": 'printf "%s\\n" "$@" >python.words; exit "$PYTHON"',
    "squeue": 'echo "$QUEUE"',
    "scontrol": 'echo "$*" >>scontrol.words; [ "$SCONTROL" = 0 ]',
}


@dataclass
class Played:
    """A batch script that runs in a folder where SLURM's commands and Python only write down what they are told."""

    folder: Path
    answers: dict[str, str] = field(default_factory=dict)

    def start(self, script: str, *words: str, **answers: str) -> "subprocess.Popen[str]":
        (self.folder / "bin").mkdir(exist_ok=True)
        for name, body in PLAYED.items():
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)
        known = {"SRUN": "0", "PYTHON": "0", "QUEUE": "RUNNING None", "SCONTROL": "0", "SLURM_JOB_ID": "9"}
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "n1",
            **known,
            **answers,
        }
        return subprocess.Popen(
            ["bash", str(CHECKOUT / "slurm" / script), *words],
            cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, script: str, *words: str, **answers: str) -> tuple[int, str]:
        process = self.start(script, *words, **answers)
        out = process.communicate(timeout=LIMIT_S)[0]
        return process.returncode, out

    def told(self, command: str) -> list[str]:
        """What a command was called with; nothing if it was not called."""
        path = self.folder / f"{command}.words"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_options_are_one_a_line_and_of_no_site(path: Path) -> None:
    lines = path.read_text().splitlines()
    options = [line for line in lines if "SBATCH" in line]
    assert [line for line in options if not OPTION.match(line)] == []
    assert max(lines.index(line) for line in options) < next(i for i, line in enumerate(lines) if line[:1] != "#")
    assert {"#SBATCH --requeue", "#SBATCH --open-mode=append"} <= set(options)
    switched_on = [line for line in options if line.startswith("#SBATCH")]
    assert not [line for line in switched_on if re.search("gpu|gres|partition|account|mem", line)]
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.name)
def test_signals_come_to_the_tasks_and_a_dead_rank_ends_the_step(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"^#SBATCH --signal=(.*)$", text, re.MULTILINE) == ["USR2@300"]
    assert text.count("srun --kill-on-bad-exit=1 ") == 1


def test_what_follows_training_is_the_same_in_both() -> None:
    first, second = (path.read_text().partition(SAME)[2] for path in TRAINING)
    assert first == second != ""


@pytest.mark.parametrize(
    ("answers", "status", "is_requeued"),
    [
        ({"SRUN": "0"}, 0, False),
        ({"SRUN": "75"}, 0, True),
        ({"SRUN": "75", "QUEUE": "COMPLETING TimeLimit"}, 0, True),
        ({"SRUN": "75", "QUEUE": "COMPLETING None"}, 0, False),  # cancelled, or requeued by SLURM
        ({"SRUN": "75", "QUEUE": "PENDING BeginTime"}, 0, False),
        ({"SRUN": "137", "PYTHON": "0"}, 0, True),
        ({"SRUN": "137", "PYTHON": "0", "QUEUE": "COMPLETING None"}, 137, False),
        ({"SRUN": "1", "PYTHON": "7"}, 7, False),
        ({"SRUN": "2", "PYTHON": "2"}, 2, False),
    ],
)
def test_what_each_end_of_training_leads_to(
    played: Played, answers: dict[str, str], status: int, is_requeued: bool
) -> None:
    found, out = played.run("train.sbatch", "recipe.yaml", "name=a b", **answers)
    assert (found, played.told("scontrol")) == (status, ["requeue 9"] if is_requeued else []), out
    trained = ["--kill-on-bad-exit=1", "python", "-u", "-m", "bigtrain.train", "recipe.yaml", "name=a b"]
    assert played.told("srun") == trained
    asked = ["-m", "bigtrain", "starts", "recipe.yaml", "name=a b", "--after", answers["SRUN"]]
    is_over = answers.get("QUEUE") == "COMPLETING None"  # nobody asks on behalf of a job that is gone
    assert played.told("python") == (asked if answers["SRUN"] not in ("0", "75") and not is_over else [])


def test_a_job_that_cannot_be_requeued_says_so(played: Played) -> None:
    (played.folder / "bin").mkdir()
    sleep = played.folder / "bin" / "sleep"
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)
    status, out = played.run("train.sbatch", "recipe.yaml", SRUN="75", SCONTROL="1")
    assert status == 75
    assert played.told("scontrol") == ["requeue 9"] * 3
    assert "submit it again" in out


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_the_shell_alone_is_passed_on(played: Played, signum: signal.Signals) -> None:
    process = played.start("train.sbatch", "recipe.yaml", SRUN_WAITS="1", SRUN="1")
    deadline_s = time.monotonic() + LIMIT_S
    while not (played.folder / "started").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(signum)
    out = process.communicate(timeout=LIMIT_S)[0]
    assert (played.folder / "got-USR2").exists()
    assert (process.returncode, played.told("scontrol")) == (0, ["requeue 9"]), out


def test_an_array_task_takes_its_line_and_runs_nothing_in_it(played: Played) -> None:
    words = ["bigtrain:digits-biggan", "name=it's $(touch canary)", "game={kind: x}", "run_dir=/runs/two words"]
    (played.folder / "sweep").write_text(f"first.yaml run_dir=one\n{shlex.join(words)}\nsub/third.yaml seed=1\n")
    task = {"SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1", "SRUN": "75"}
    status, out = played.run("array.sbatch", "sweep", **task)
    assert played.told("srun")[5:] == words
    assert (status, played.told("scontrol")) == (0, ["requeue 8_1"]), out
    assert not (played.folder / "canary").exists()


def test_a_line_without_a_folder_gets_its_own(played: Played) -> None:
    (played.folder / "sweep").write_text("sub/digits.yaml seed=1\nbigtrain:digits-biggan")
    folders = []
    for task in ("0", "1"):
        status, out = played.run("array.sbatch", "sweep", SLURM_ARRAY_JOB_ID="8", SLURM_ARRAY_TASK_ID=task)
        assert status == 0, out
        folders.append(played.told("srun")[-1])
    assert folders == ["run_dir=runs/digits-8_0", "run_dir=runs/digits-biggan-8_1"]


@pytest.mark.parametrize("words", [["sweep"], ["missing"], []])
def test_an_array_without_a_line_for_it_is_refused(played: Played, words: list[str]) -> None:
    (played.folder / "sweep").write_text("first.yaml\n")
    status, out = played.run("array.sbatch", *words, SLURM_ARRAY_JOB_ID="8", SLURM_ARRAY_TASK_ID="1")
    assert status == 2
    assert "sweep" in out.lower()
    assert played.told("srun") == []


def test_a_model_is_read_by_any_verb(played: Played) -> None:
    assert played.run("evaluate.sbatch", "sample", "runs/a", "--npz", "x y.npz")[0] == 0
    read = [
        "--ntasks=1",
        "--kill-on-bad-exit=1",
        "python",
        "-u",
        "-m",
        "bigtrain",
        "sample",
        "runs/a",
        "--npz",
        "x y.npz",
    ]
    assert played.told("srun") == read
    assert played.run("evaluate.sbatch", "evaluate", "runs/a")[0] == 0
    assert played.told("srun") == ["--kill-on-bad-exit=1", "python", "-u", "-m", "bigtrain", "evaluate", "runs/a"]
    (played.folder / "models").write_text("runs/a\nruns/b/snapshots/1 --npz 'x y.npz'\n")
    assert played.run("evaluate.sbatch", "sample", "models", SLURM_ARRAY_TASK_ID="1")[0] == 0
    assert played.told("srun")[7:] == ["runs/b/snapshots/1", "--npz", "x y.npz"]
    assert played.run("evaluate.sbatch", "sample", "models", SLURM_ARRAY_TASK_ID="2")[0] == 2
    status, out = played.run("evaluate.sbatch", "judge", "runs/a", PYTHON="2")
    assert status == 2
    assert "no verb 'judge'" in out


def test_a_watcher_that_was_stopped_comes_again(played: Played) -> None:
    assert played.run("evaluate.sbatch", "evaluate", "runs/a", "--watch", SRUN="75")[0] == 0
    assert played.told("scontrol") == ["requeue 9"]
    assert played.run("evaluate.sbatch", "evaluate", "runs/a", "--watch", SRUN="75", SCONTROL="1")[0] == 75
    ends = ({"SRUN": "0"}, {"SRUN": "4"}, {"SRUN": "7"}, {"SRUN": "75", "QUEUE": "COMPLETING Preempted"})
    for answers in ends:  # 7: its third start without an evaluation
        (played.folder / "scontrol.words").unlink(missing_ok=True)
        status = played.run("evaluate.sbatch", "evaluate", "runs/a", "--watch", **answers)[0]
        assert status == (0 if answers["SRUN"] == "75" else int(answers["SRUN"]))
        assert played.told("scontrol") == []


def test_a_signal_to_the_job_reaches_its_watcher(played: Played) -> None:
    process = played.start("evaluate.sbatch", "evaluate", "runs/a", "--watch", SRUN_WAITS="1", SRUN="0")
    deadline_s = time.monotonic() + LIMIT_S
    while not (played.folder / "started").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    process.communicate(timeout=LIMIT_S)
    assert (played.folder / "got-USR2").exists()
    assert played.told("scontrol") == ["requeue 9"]


def test_outside_slurm_it_asks_to_be_submitted(played: Played) -> None:
    status, out = played.run("train.sbatch", "recipe.yaml", SLURM_JOB_ID="")
    assert (status, played.told("srun")) == (2, []), out
    assert "submit me with sbatch" in out
