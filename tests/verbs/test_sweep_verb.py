"""`bigtrain sweep`: the file of runs, the command that submits it, and what the runs came to."""

import json

import pytest

from bigtrain import cli


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """A sweep of two runs, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("recipe: bigtrain:digits-mlp\ngrid: {seed: [0, 1]}\n")
    return tmp_path


def test_it_writes_a_run_a_line_and_says_how_to_submit_them(sweep, capsys):
    assert cli.main(["sweep", "mine.yaml"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 run(s) in mine.runs; submit them with"
    assert printed[1].startswith("  sbatch --array=0-1 ")
    assert printed[1].endswith("slurm/array.sbatch mine.runs")
    assert len(printed) == 2  # no results yet
    assert (sweep / "mine.runs").read_text() == "".join(
        f"bigtrain:digits-mlp seed={seed} name=digits-mlp-seed{seed} run_dir=runs/mine-sweep/digits-mlp-seed{seed}\n"
        for seed in (0, 1)
    )


def test_it_shows_results_once_there_are_some(sweep, capsys):
    folder = sweep / "runs" / "mine-sweep" / "digits-mlp-seed1"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "stopped and saved; start it again", "images_seen": 640}')
    assert cli.main(["sweep", "mine.yaml", "--json", "results.json"]) == 0
    table = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:2] for line in table[1:]] == [
        ["digits-mlp-seed0", "0/128,000"],
        ["digits-mlp-seed1", "640/128,000"],
    ]
    assert table[2].endswith("stopped and saved")
    first, second = json.loads((sweep / "results.json").read_text())
    assert (first["state"], second["index"], second["images_seen"]) == ("not started", 1, 640)
    assert second["words"][0] == "bigtrain:digits-mlp"


def test_a_sweep_file_that_differs_is_not_replaced_unasked(sweep, capsys):
    assert cli.main(["sweep", "mine.yaml", "--out", "runs.txt"]) == 0
    written = (sweep / "runs.txt").read_text()
    (sweep / "mine.yaml").write_text("recipe: bigtrain:digits-mlp\ngrid: {seed: [0, 1, 2]}\n")
    assert cli.main(["sweep", "mine.yaml", "--out", "runs.txt"]) == 2
    assert "runs.txt is there and differs" in capsys.readouterr().err
    assert (sweep / "runs.txt").read_text() == written
    assert cli.main(["sweep", "mine.yaml", "--out", "runs.txt", "--force"]) == 0
    assert len((sweep / "runs.txt").read_text().splitlines()) == 3
    assert cli.main(["sweep", "mine.yaml", "--out", "mine.yaml", "--force"]) == 2


def test_a_run_that_could_not_start_leaves_no_file(sweep, capsys):
    (sweep / "mine.yaml").write_text("recipe: bigtrain:digits-mlp\ngrid: {seed: [0, -1]}\n")
    assert cli.main(["sweep", "mine.yaml"]) == 2
    assert capsys.readouterr().err.startswith("run 1 (digits-mlp-seed-1): command line: seed: -1 is below 0")
    assert not (sweep / "mine.runs").exists()


def test_what_is_no_sweep_or_no_target_is_one_sentence(sweep, capsys):
    (sweep / "empty.yaml").write_text("")
    for words, sentence in (
        (["."], "is a folder, not a sweep"),
        (["empty.yaml"], "the file is empty; write `recipe:"),
        (["mine.yaml", "--json", "no/such.json"], "there is no folder no"),
        (["mine.yaml", "--json", "mine.yaml"], "is the sweep itself"),
    ):
        assert cli.main(["sweep", *words]) == 2
        assert sentence in capsys.readouterr().err
