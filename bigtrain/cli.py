"""The door `bigtrain VERB`: finds the verbs, imports only the one asked for, and turns errors into exit statuses."""

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from bigtrain import __version__
from bigtrain.recipe.errors import EXIT_DONE, BigtrainError, UsageError
from bigtrain.recipe.registry import nearest

VERBS = Path(__file__).parent / "verbs"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(words: Sequence[str] | None = None) -> int:
    """Run the verb that the command line names and return its exit status."""
    return run_door(lambda: _run_verb(list(sys.argv[1:] if words is None else words)))


def run_door(function: Callable[[], int]) -> int:
    """Return what `function` returns; an error a user can cause becomes its sentence on stderr and its exit status.

    Anything else that is raised is our bug and keeps its traceback.
    """
    try:
        status = function()
        sys.stdout.flush()  # so that a broken pipe shows here, not while the interpreter shuts down
    except BigtrainError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has left. Nothing more can be said to it, not even by Python's flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return status


def say(text: object = "", *, end: str = "\n") -> None:
    """Print to stdout; the one way in which a verb speaks."""
    print(text, end=end, flush=True)


def verbs() -> dict[str, str]:
    """Return every verb with its one line of help, read from the files without importing them."""
    return {path.stem: _first_line(path) for path in sorted(VERBS.glob("*.py")) if not path.stem.startswith("_")}


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _run_verb(words: list[str]) -> int:
    known = verbs()
    if not words or words[0] in ("-h", "--help", "help"):
        say(_overview(known), end="")
        return EXIT_DONE
    if words[0] in ("-V", "--version"):
        say(f"bigtrain {__version__}")
        return EXIT_DONE
    verb = words[0]
    if verb not in known:
        close = nearest(verb, list(known))
        hint = f"did you mean '{close}'?" if close else f"verbs: {', '.join(known)}"
        raise UsageError(f"'{verb}' is not a verb of bigtrain; {hint}")
    module = importlib.import_module(f"bigtrain.verbs.{verb}")
    parser = _Parser(prog=f"bigtrain {verb}", description=known[verb])
    module.add_arguments(parser)
    # Intermixed, so that key=value may follow an option; argparse cannot do that where a verb has words of its own.
    parse = parser.parse_args if parser._subparsers else parser.parse_intermixed_args
    status: int = module.run(parse(words[1:]))
    return status


def _overview(known: dict[str, str]) -> str:
    width = max(map(len, known), default=0)
    lines = [f"  {name:<{width}}  {line}" for name, line in known.items()]
    head = "usage: bigtrain VERB ...   (bigtrain VERB --help tells more)\n\n"
    return head + "\n".join(lines) + "\n"


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like every other error of a user."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; `{self.prog} --help` shows what it takes")
