"""A batch script of one's own from the template that ships: header values replaced, recipe and overrides filled in."""

import re
import shlex
from collections.abc import Mapping, Sequence

HEADER = re.compile(r"^#(#?)SBATCH\s+--([a-z-]+)(?:=(\S*))?\s*(?:#.*)?$")  # a second # switches a line off
SECONDS_PER_DAY = 86_400


def fill(template: str, header: Mapping[str, str], words: Sequence[str]) -> str:
    """Return the template with `#SBATCH --NAME=VALUE` lines for these values, and these words as what it runs.

    A line of the template, also one that is switched off, is replaced where it stands; a name that has none gets a line
    after the last one. The words, a recipe and overrides, are what the script runs unless `sbatch FILE WORD ...` gives
    others.
    """
    left, lines, last = dict(header), [], 0
    for line in template.splitlines():
        match = HEADER.match(line)
        if match and match[2] in header:
            line = f"#SBATCH --{match[2]}={header[match[2]]}"
            left.pop(match[2], None)
        lines.append(line)
        last = len(lines) if match else last
    last = last or 1  # a template without any: after its first line, `#!`
    added = [f"#SBATCH --{name}={value}" for name, value in left.items()]
    given = ["", f'[ "$#" -gt 0 ] || set -- {shlex.join(words)}']
    return "\n".join([*lines[:last], *added, *given, *lines[last:]]) + "\n"


def header_of(script: str) -> dict[str, str]:
    """Return the `#SBATCH --NAME=VALUE` lines of a script that are on; a line without a value has an empty one."""
    matches = (HEADER.match(line) for line in script.splitlines())
    return {match[2]: match[3] or "" for match in matches if match and not match[1]}


def slurm_time(limit_s: float) -> str:
    """Return a time limit as SLURM writes it, D-HH:MM:SS, rounded up to a second."""
    days, rest_s = divmod(-int(-limit_s // 1), SECONDS_PER_DAY)
    hours, rest_s = divmod(rest_s, 3600)
    return f"{days}-{hours:02d}:{rest_s // 60:02d}:{rest_s % 60:02d}"
