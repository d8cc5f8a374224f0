"""Time from the command to the first step of digits-biggan, warm: files cached, the judging classifier trained before.

    python -m benchmarks.start [--json FILE]

The command is `python -m bigtrain.train recipes/digits-biggan.yaml`, as a user types it; `accelerate launch` adds its
own start. What is measured ends when the log has the line `start`, right before the first step, and when it has the
first status line, right after it. There is nothing to compare with; a bare `import torch, accelerate` is shown beside.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.digits import RECIPE
from benchmarks.timing import Row, main, time_s
from bigtrain.data.digits import write_digits
from bigtrain.training.log import read_log

REPEATS = 5
POLL_S = 0.01
LIMIT_S = 600.0
EVENTS = ("start", "status")


def start_once(folder: Path, number: int) -> dict[str, float]:
    """Start a fresh run and return after how many seconds its log had each event; the run is ended then."""
    run_dir = folder / f"run-{number}"
    overrides = [f"data.shards={folder / 'digits'}", f"run_dir={run_dir}", "log={every_images: 32, tensorboard: true}"]
    command = [sys.executable, "-m", "bigtrain.train", str(RECIPE), *overrides]
    reached_s: dict[str, float] = {}
    started_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while set(reached_s) != set(EVENTS):
            if process.poll() is not None or time.perf_counter() - started_s > LIMIT_S:
                raise RuntimeError(f"the run ended with {process.returncode} before its first step: {command}")
            log = run_dir / "log.jsonl"
            found = {event["event"] for event in read_log(log)} if log.exists() else set()
            for event in found & set(EVENTS) - set(reached_s):
                reached_s[event] = time.perf_counter() - started_s
            time.sleep(POLL_S)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return reached_s


def import_once() -> None:
    """Start Python and import what no run can do without."""
    subprocess.run([sys.executable, "-c", "import torch, accelerate"], check=True, env=os.environ)


def measure() -> Sequence[Row]:
    """Return the medians of several starts after one that warms up, against a bare import."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits")
        start_once(folder, 0)  # trains the classifier and computes the real statistics, kept beside the runs
        times, imports = [], []
        for number in range(1, 1 + REPEATS):
            times.append(start_once(folder, number))
            imports.append(time_s(import_once))
    bare_s = statistics.median(imports)
    medians = {event: statistics.median(each[event] for each in times) for event in EVENTS}
    names = {"start": "command to the first step", "status": "command to the end of the first step"}
    return [
        Row(
            name=f"digits-biggan, {names[event]} / bare import", ours=medians[event], reference=bare_s,
            ratio=bare_s / medians[event], unit="s",
        )
        for event in EVENTS
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
