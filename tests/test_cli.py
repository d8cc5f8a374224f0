"""The door `bigtrain VERB`: quick help, one sentence for a mistake, and exit statuses."""

import ast
import os
import subprocess
import sys

import pytest

import bigtrain
from bigtrain import cli
from bigtrain.recipe.errors import DataError, FolderLockedError, RecipeError

VERB = '''"""Count to a number; more follows
in the second line."""

from bigtrain.cli import say


def add_arguments(parser):
    parser.add_argument("number", type=int)


def run(arguments):
    say(arguments.number)
    return 7
'''


@pytest.fixture
def verbs(tmp_path, monkeypatch):
    """A folder of verbs with `count` and `broken` in it."""
    (tmp_path / "count.py").write_text(VERB)
    (tmp_path / "broken.py").write_text('"""Cannot be imported."""\n\nimport nothing_of_this_name\n')
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(cli, "VERBS", tmp_path)
    monkeypatch.setattr("bigtrain.verbs.__path__", [str(tmp_path)])
    yield tmp_path
    for name in ("count", "broken"):
        sys.modules.pop(f"bigtrain.verbs.{name}", None)


def door(*words):
    """Run the real door in a process of its own."""
    return subprocess.run([sys.executable, "-m", "bigtrain", *words], capture_output=True, text=True, timeout=300)


def test_help_lists_verbs_with_the_first_line_of_their_docstring(verbs, capsys):
    assert cli.main(["--help"]) == 0
    assert "\n  count   Count to a number; more follows\n" in capsys.readouterr().out
    assert cli.main([]) == 0


def test_a_verb_is_run_and_its_status_returned(verbs, capsys):
    assert cli.main(["count", "3"]) == 7
    assert capsys.readouterr().out == "3\n"


def test_only_the_chosen_verb_is_imported(verbs):
    assert cli.main(["count", "3"]) == 7
    assert "bigtrain.verbs.broken" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        cli.main(["broken"])


def test_an_unknown_verb_names_the_nearest(verbs, capsys):
    assert cli.main(["coutn"]) == 2
    assert capsys.readouterr().err == "'coutn' is not a verb of bigtrain; did you mean 'count'?\n"
    assert cli.main(["qqq"]) == 2
    assert capsys.readouterr().err == "'qqq' is not a verb of bigtrain; verbs: broken, count\n"


@pytest.mark.parametrize("words", [["count"], ["count", "many"], ["count", "1", "--loud"]])
def test_a_wrong_command_line_is_one_sentence_with_status_2(verbs, capsys, words):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("bigtrain count: ")
    assert error.endswith("; `bigtrain count --help` shows what it takes\n")
    assert error.count("\n") == 1


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bigtrain {bigtrain.__version__}\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [(RecipeError(["one", "two"]), 2), (FolderLockedError("locked"), 3), (DataError("no index"), 6)],
)
def test_an_error_of_the_user_is_its_sentence_and_its_status(capsys, error, status):
    def fail():
        raise error

    assert cli.run_door(fail) == status
    assert capsys.readouterr().err == f"{error}\n"


def test_an_interrupt_leaves_with_130(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert cli.run_door(interrupt) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_our_own_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_door(lambda: 1 // 0)


@pytest.mark.parametrize("speech", ["[cli.say('x' * 100) for _ in range(9999)] and 0", "sys.stdout.write('x') and 0"])
def test_a_reader_that_leaves_early_is_no_error(speech):
    code = "import sys; from bigtrain import cli\n"
    code += f"sys.exit(cli.run_door(lambda: {speech}))"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
    process.stdout.close()  # long before Python has started there
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


def test_help_and_mistakes_do_not_import_torch():
    code = "import sys; from bigtrain import cli; cli.main(['--help']); cli.main(['qqq']); import bigtrain; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_the_package_is_a_door_too():
    result = door("no-such-verb")
    assert result.returncode == 2
    assert result.stderr.startswith("'no-such-verb' is not a verb of bigtrain; ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", sorted(cli.verbs()))
def test_every_verb_can_be_run_and_says_what_it_does(verb):
    tree = ast.parse((cli.VERBS / f"{verb}.py").read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"add_arguments", "run"} <= names
    assert 10 < len(cli.verbs()[verb]) <= 100


def test_load_is_the_packages_own():
    assert "load" in bigtrain.__all__
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        bigtrain.laod  # noqa: B018
