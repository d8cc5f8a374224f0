"""`bigtrain best`: one table a protocol, the winner and where its weights are, and sentences where there are none."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bigtrain.cli import main
from bigtrain.evaluation.which import find_model
from bigtrain.recipe.load import load_recipe
from bigtrain.reports.overview import quick_overview
from bigtrain.reports.results import result_of
from bigtrain.training.schema import Recipe


def put(run: Path, images: int, figures: dict[str, Any], average: str = "ema-100", num: int = 50, **more: Any) -> None:
    facts = {"num_generated": num, "num_real": 1797, "sampling": {"average": average}}
    path = run / "evaluations" / f"{images:012d}-fd_classifier-{num}-{average[4:]}{num}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images_seen": images, "figures": figures, "protocol": facts, **more}))


def put_snapshot(run: Path, images: int, salt: int = 0) -> Path:
    path = run / "snapshots" / f"{images:012d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    record = json.dumps({"progress": {"images_seen": images, "salt": salt}})
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "bigtrain-snapshot-1", "record": record})
    return path


def put_checkpoint(run: Path, images: int) -> Path:
    folder = run / "checkpoints" / f"{images:012d}"
    folder.mkdir(parents=True)
    (folder / "MANIFEST.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with three evaluated moments of two averages; the best one's weights are gone."""
    put(tmp_path, 10, {"fd_classifier": 3.0, "kd_classifier": 0.3, "recall": 0.4})
    put(tmp_path, 20, {"fd_classifier": 1.0, "kd_classifier": 0.2, "recall": 0.2})
    put(tmp_path, 20, {"fd_classifier": 1.5, "kd_classifier": 0.1, "recall": 0.3}, average="ema-200")
    put(tmp_path, 30, {"fd_classifier": 2.0, "kd_classifier": 0.4, "recall": 0.6})
    put_checkpoint(tmp_path, 10)
    put_checkpoint(tmp_path, 30)
    return tmp_path


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["best", *map(str, words)])
    heard = capsys.readouterr()
    return status, heard.out.strip(), heard.err.strip()


def test_the_table_ranks_by_a_figure_and_marks_the_winner(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, run)
    assert status == 0
    head, files, columns, *rows, last = out.splitlines()
    assert head.startswith("fd_classifier-50-10050 ")
    assert files == "files: ema-100 *-fd_classifier-50-10050.json, ema-200 *-fd_classifier-50-20050.json"
    assert "(50 generated, 1,797 real images); fd_classifier: lower is better" in head
    assert columns.split() == ["images", "average", "fd_classifier", "kd_classifier", "recall", "by", "weights"]
    assert [row.split() for row in rows] == [
        ["10", "ema-100", "3", "0.3", "0.4", "training", "checkpoint"],
        ["*", "20", "ema-100", "1", "0.2", "0.2", "training", "-"],
        ["20", "ema-200", "1.5", "0.1", "0.3", "training", "-"],
        ["30", "ema-100", "2", "0.4", "0.6", "training", "checkpoint"],
    ]
    assert last == "best: ema-100 after 20 images (fd_classifier 1): neither checkpoint nor snapshot is there any more"


def test_the_path_alone_goes_to_stdout(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, run, "--by", "recall", "--path") == (0, str(run / "checkpoints" / "000000000030"), "")
    assert ask(capsys, run, "--kept", "--path") == (0, str(run / "checkpoints" / "000000000030"), "")
    status, out, error = ask(capsys, run, "--path")
    assert (status, out) == (2, "")
    assert "the weights of ema-100 after 20 images (fd_classifier 1) are gone" in error
    assert "the best that is there is ema-100 after 30 images (fd_classifier 2)" in error
    snapshot = put_snapshot(run, 20, salt=1)  # of other weights: the run had gone back in between
    assert ask(capsys, run, "--path")[0] == 2
    put_snapshot(run, 20)
    assert ask(capsys, run, "--path") == (0, str(snapshot), "")


def test_two_protocols_are_never_one_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(run, 10, {"fd_classifier": 0.5, "recall": 0.9}, num=60, by="watch")
    status, out, _ = ask(capsys, run)
    assert status == 0
    assert out.count("best: ") == 2
    assert out.splitlines()[-1] == "2 protocols: their figures do not compare"
    first, second = out.split("\n\n")[:2]
    assert "(50 generated" in first
    assert "(60 generated" in second
    status, out, error = ask(capsys, run, "--path")
    assert (status, out) == (2, "")
    assert "was evaluated by 2 protocols with fd_classifier" in error
    assert "choose one with --protocol (fd_classifier-50-10050, fd_classifier-60-10060)" in error
    assert ask(capsys, run, "--protocol", "fd_classifier-60", "--path") == (
        0, str(run / "checkpoints" / "000000000010"), "",
    )  # fmt: skip
    of_the_second = ask(capsys, run, "--protocol", "fd_classifier-50-20050", "--json")[1]
    assert [len(each["evaluations"]) for each in json.loads(of_the_second)] == [4], (
        "a name of any average means them all"
    )


def test_names_of_protocols_are_those_of_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(run, 40, {"fd_classifier": 0.5}, num=60, by="watch")
    found = json.loads(ask(capsys, run, "--json")[1])
    names = [name for each in found for name in (each["protocol"], *each["names"].values())]
    assert len(names) == 5
    for name in names:
        assert list((run / "evaluations").glob(f"*-{name}.json")), name


def test_checkpoint_best_is_what_best_says_after_a_rollback_and_beside_watchers(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of 40 is of weights that the run went back from, the watcher's newer one of another protocol."""
    put(run, 40, {"fd_classifier": 0.1})
    put_checkpoint(run, 40)  # of the weights since
    entry = {"from_images": 45, "to_images": 30, "salt": 1, "reason": "diverged"}
    (run / "checkpoints" / "rollbacks.json").write_text(json.dumps([entry]))
    put(run, 50, {"fd_classifier": 0.2}, num=60, by="watch", salt=1)
    put_checkpoint(run, 50)
    path = str(run / "checkpoints" / "000000000030")
    assert str(find_model(run, "best")) == path
    assert ask(capsys, run, "--kept", "--protocol", "fd_classifier-50", "--path") == (0, path, "")
    first, second = ask(capsys, run)[1].split("\n\n")[:2]
    assert first.startswith("fd_classifier-50-10050 "), "the run's own protocol first, though a watcher was here later"
    assert second.startswith("fd_classifier-60-10060 ")
    assert "40" not in first.split()
    said = json.loads(ask(capsys, run, "--json")[1])[0]["best"]
    assert (said["images_seen"], said["average"]) == (20, "ema-100")
    best = quick_overview(run).best
    assert best is not None
    assert (best.name, best.value, best.images_seen, best.protocol) == (
        "fd_classifier", said["figures"]["fd_classifier"], 20, "fd_classifier-50-10050",
    )  # fmt: skip
    recipe = load_recipe("bigtrain:digits-mlp", [f"run_dir={run}", "ema=[{halflife_images: 100}]"], Recipe)
    figure = result_of(recipe).figures["fd_classifier"]
    assert (figure.best, figure.best_images, figure.last) == (1.0, 20, 2.0)


def test_reports_rank_every_average_by_the_figure_of_the_recipe(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "recipe.yaml").write_text("checkpoint:\n  keep_best_by: kd_classifier\n")
    said = json.loads(ask(capsys, run, "--json")[1])[0]["best"]
    best = quick_overview(run).best
    assert best is not None
    assert (best.name, best.value, best.images_seen) == ("kd_classifier", 0.1, said["images_seen"])
    assert said["average"] == "ema-200"


def test_asking_for_the_best_imports_no_torch(run: Path) -> None:
    (run / "recipe.yaml").write_text("checkpoint:\n  keep_best_by: recall\n")
    put_snapshot(run, 30)
    code = "import sys, bigtrain.metrics.records; from bigtrain import cli; assert 'torch' not in sys.modules; "
    code += f"cli.main(['best', {str(run)!r}, '--path']); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [str(run / "snapshots" / "000000000030.safetensors"), "False"]


def test_one_average_can_be_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ask(capsys, run, "--average", "ema-200", "--json")
    (standing,) = json.loads(out)
    assert standing["figure"] == "fd_classifier"
    assert [(each["images_seen"], each["average"], each["weights"]) for each in standing["evaluations"]] == [
        (20, "ema-200", None),
    ]  # fmt: skip
    assert standing["best"]["figures"]["kd_classifier"] == pytest.approx(0.1)
    assert standing["facts"]["num_generated"] == 50


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--by", "fid_clasifier"],
            "--by fid_clasifier: .* has no evaluation of that name; did you mean 'fd_classifier'",
        ),
        (["--by", "fid"], "--by fid: .* has no evaluation of that name"),
        (["--average", "ema-20"], "--average ema-20: .*; did you mean 'ema-200'"),
        (["--protocol", "fid"], "--protocol fid: .* there is fd_classifier-50-"),
        (["--protocol", "fd_clasifier-50-0"], "did you mean 'fd_classifier-50-"),
    ],
)
def test_what_was_not_evaluated_is_a_sentence_and_status_2(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    import re

    status, out, error = ask(capsys, run, *words)
    assert (status, out) == (2, "")
    assert re.search(sentence, error), error


def test_a_run_without_evaluations_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, tmp_path / "nowhere")[0] == 2
    status, _, error = ask(capsys, tmp_path)
    assert status == 2
    assert "has no evaluations; give its recipe an `evaluate` section" in error
