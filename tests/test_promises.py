"""Every test that `docs/promises.md` names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_promises_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "promises.md").read_text()
    named = set(re.findall(r"`([\w/]*test_\w+\.py)`", text))
    assert len(named) > 10
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    there |= {Path(path).name for path in there}  # a row names the folder once
    assert named <= there, named - there


def test_every_promise_has_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "promises.md").read_text().splitlines() if line.startswith("| **")]
    assert rows
    assert [row for row in rows if "test_" not in row.split("|")[2]] == []
