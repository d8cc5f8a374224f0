"""`bigtrain report`: what the page holds, without a browser."""

import base64
import html
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from bigtrain import cli
from bigtrain.reports import extra, page
from bigtrain.reports.comparison import differing, flat, rows
from bigtrain.reports.page import render
from bigtrain.reports.pictures import encoded
from bigtrain.reports.run import read_runs
from bigtrain.reports.series import evaluation_panels, status_panels, thinned

from .made_runs import (
    PROTOCOL,
    add_offline_parts,
    event,
    make_run,
    start,
    status,
    write_evaluation,
    write_json,
    write_log,
    write_picture,
    write_recipe,
)

TEMPLATES = Path(page.__file__).parent / "templates"
NASTY = "</script><script>alert('&')</script>"


def data_of(text: str) -> dict:
    """Return what the page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def without_scripts(text: str) -> str:
    """Return the page's markup alone."""
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_a_page_of_200_grids_stays_under_10_mb_and_keeps_them_all(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "samples" / "000000008000.png").unlink()
    for number in range(193):  # and 7 that are there; noise, of which no picture is harder to compress
        write_picture(tmp_path / "samples" / f"{number:012d}.png", seed=number, side=220)
    text = render(read_runs([tmp_path]))
    assert len(text.encode()) < 10_000_000
    frames = data_of(text)["runs"][0]["frames"]
    assert len(frames) == 200
    assert [frame["images"] for frame in frames] == sorted(frame["images"] for frame in frames)
    assert min(frame["width"] for frame in frames if frame["images"] < 193) >= 200


def test_pictures_keep_to_their_budget(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        write_picture(path, seed=number, side=100)
    paths.append(tmp_path / "torn.png")
    paths[-1].write_bytes(b"\x89PNG")
    for budget in (1_000_000, 40_000, 20_000, 8_000):
        found = encoded(paths, budget)
        assert sum(len(shown.uri) for shown in found.values()) <= budget
        assert found
    assert set(encoded(paths, 1_000_000)) == set(paths[:8])
    assert encoded(paths, 100) == {}


def test_nothing_that_a_file_says_is_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path, NASTY, objective=json.dumps(NASTY))
    add_offline_parts(run)
    audit = {"images_seen": 1, "modes": {NASTY: NASTY}, "pictures": {NASTY: "gone.png"}, "protocol": {NASTY: NASTY}}
    write_json(run / "audits" / "000000064001.json", audit)
    write_json(run / "status.json", {"state": f"failed: {NASTY}", "exit_status": 1})
    write_evaluation(run, 64000, {NASTY: 1.0}, f"{NASTY.replace('/', '')}-1")
    text = render(read_runs([run]))
    assert NASTY not in text
    assert text.count("<script") == text.count("</script>") == 3
    assert html.escape(NASTY, quote=False).replace("'", "&#39;") in text
    assert data_of(text)["runs"][0]["name"] == NASTY


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    add_offline_parts(make_run(tmp_path))
    markup = without_scripts(render(read_runs([tmp_path])))
    assert "default-src 'none'" in markup
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", markup)
    assert "url(" not in markup
    assert "@import" not in markup


def test_figures_of_different_protocols_are_never_in_one_column_or_plot(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "a"), make_run(tmp_path / "b", "b")]
    write_evaluation(runs[1], 64000, {"fd_classifier": 0.5}, "fd-2", {**PROTOCOL, "num_generated": 50000})
    records = read_runs(runs)
    panels = evaluation_panels(records)
    assert [(panel.title, panel.protocol, len(panel.lines)) for panel in panels] == [
        ("fd classifier", "fd-1", 2),
        ("fd classifier", "fd-2", 1),
        ("kd classifier", "fd-1", 2),
    ]
    found = page.evaluation_tables(records)
    assert [(table["protocol"], len(table["rows"])) for table in found["tables"]] == [("fd-1", 4), ("fd-2", 1)]
    best = [row["cells"][0]["text"] for row in found["tables"][0]["rows"] if row["cells"][0]["is_best"]]
    assert best == ["0.75"] * 2  # and not 0.5, of the other protocol
    assert [(row.key, row.values) for row in found["differing"]] == [("num_generated", ["100", "50,000"])]
    assert "Figures of different protocols do not compare" in render(records)


def test_what_the_run_went_back_from_is_on_no_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    entry = {"from_images": 64000, "to_images": 48000, "salt": 1, "reason": "diverged"}
    write_json(run / "checkpoints" / "rollbacks.json", [entry])
    (record,) = read_runs([run])
    assert [each.images_seen for each in record.evaluations] == [32000]
    assert "The run went back from what 1 evaluation(s) judged: left out." in record.notes


def test_curves_and_audits_of_what_the_run_went_back_from_are_on_no_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_offline_parts(run)
    entry = {"from_images": 64000, "to_images": 48000, "salt": 1, "reason": "diverged"}
    write_json(run / "checkpoints" / "rollbacks.json", [entry])
    (record,) = read_runs([run])
    assert (record.curves, record.audits) == ([], [])
    text = render([record])
    for sentence in ("what 1 truncation curve(s) measured: left out.", "what 1 audit(s) examined: left out."):
        assert f"The run went back from {sentence}" in record.notes
        assert sentence in text
    assert not any("curves/" in note or "audits/" in note for note in record.notes)
    for path in (run / "curves" / "000000064000-fid-7.json", run / "audits" / "000000064000.json"):
        write_json(path, json.loads(path.read_text()) | {"salt": 1})  # made anew, of the run as it stands
    (record,) = read_runs([run])
    assert [each.images_seen for each in (*record.curves, *record.audits)] == [64000, 64000]


def test_a_figure_a_class_does_not_drown_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    figures = {f"fid_class_{number}": float(number) for number in range(100)} | {"fid_class_0_seeds_std": 0.5}
    write_evaluation(run, 64000, figures, "fid-2")
    (record,) = read_runs([run])
    panels = [panel for panel in evaluation_panels([record]) if panel.protocol == "fid-2"]
    assert len(panels) == 24
    assert panels[0].lines[0].error == [0.5]
    table = page.evaluation_tables([record])["tables"][1]
    assert (len(table["columns"]), table["num_more"], table["rows"][0]["cells"][0]["text"]) == (24, 76, "0 ± 0.5")


def test_recipes_show_first_what_differs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "a"), make_run(tmp_path / "b", "b", objective="relativistic")]
    text = without_scripts(render(read_runs(runs)))
    assert "1 key differs" in text
    assert text.index("<th>game.objective</th>") < text.index("all 10 keys")
    assert "The recipes are equal." in render(read_runs([runs[0], runs[0]]))


def test_leaves_of_recipes() -> None:
    tree = {"a": {"b": None, "c": [1, 2]}, "d": [{"e": True}], "f": 64000, "g": {}}
    assert flat(tree) == {"a.b": "off", "a.c": "[1, 2]", "d.0.e": "true", "f": "64,000", "g": "{}"}
    apart = rows([{"a": 1, "d": 1}, {"a": 1, "b": 2, "c": 3, "d": 1, "e": 1}])
    assert "".join(row.key for row in apart) == "abcde"
    found = differing([{"a": 1, "name": "x"}, {"a": 1, "b": 2, "name": "y"}])
    assert [(row.key, row.values) for row in found] == [("b", ["absent", "2"])]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: (run / "log.jsonl").unlink(),
        lambda run: (run / "log.jsonl").write_bytes(b"\xff\xfe\n[1]\n{}\n" + (run / "log.jsonl").read_bytes()[:-40]),
        lambda run: (run / "recipe.yaml").write_text("a: [1"),
        lambda run: (run / "recipe.yaml").unlink(),
        lambda run: (run / "status.json").write_text('{"state"'),
        lambda run: write_json(run / "status.json", {"state": "running", "exit_status": None}),
        lambda run: write_json(run / "starts.json", {"not": "a list"}),
        lambda run: [path.write_bytes(b"no picture") for path in (run / "samples").iterdir()],
        lambda run: [path.write_text("[]") for path in (run / "evaluations").iterdir()],
        lambda run: [path.write_text('{"images_seen": "many"') for path in (run / "curves").glob("*.json")],
        lambda run: write_json(run / "audits" / "000000064000.json", {"pictures": ["x"], "protocol": 3}),
        lambda run: write_log(run, [{"event": "start", "images_seen": 0}, {"event": "status", "images_seen": 5}]),
        lambda run: write_log(run, [{"event": "alarm", "images_seen": 1, "reason": "half a pair: \ud800"}]),
        lambda run: write_log(run, [{"event": "status", "images_seen": 10**400, "loss_generator": 10**400}]),
        lambda run: write_evaluation(run, 64000, {"fid": 10**400, "\ud800": 1.0}, "fid-1"),
    ],
)
def test_what_is_missing_or_damaged_leaves_the_rest(tmp_path: Path, spoil) -> None:
    run = make_run(tmp_path / "run", world=2)
    add_offline_parts(run)
    spoil(run)
    text = render(read_runs([run]))
    assert len(data_of(text)["runs"]) == 1
    assert "</html>" in text
    assert text.encode(), "what cannot be written as UTF-8 is replaced"


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    text = without_scripts(render(read_runs([tmp_path])))
    for part in ("log.jsonl", "samples/", "evaluations/", "curves/", "audits/"):
        assert f"{part} is missing or empty" in text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    names = [record.label for record in read_runs([make_run(tmp_path / "a", "x"), make_run(tmp_path / "b", "x")])]
    assert names == [f"x ({tmp_path / 'a'})", f"x ({tmp_path / 'b'})"]


def test_thinning_keeps_peaks() -> None:
    events = [event("status", images, loss_x=1.0, other=float(images)) for images in range(1000)]
    events[501]["loss_x"] = 99.0
    events[502]["loss_x"] = -99.0
    kept, columns = thinned(events, 100)
    assert len(kept) == len(columns["loss_x"]) <= 100
    peaks = [value for value in columns["loss_x"] if value != 1.0]
    assert peaks == [99.0, -99.0]  # in the order in which they came
    assert columns["other"] == sorted(columns["other"])
    assert [each["images_seen"] for each in kept][-1] == 999
    assert thinned(events[:100], 100)[1]["loss_x"] == [1.0] * 100


def test_figures_that_are_not_known_get_a_panel_of_their_own() -> None:
    line = status(32, r1=0.5, path_length=2.0, novelty=1.0, loss_generator_nonfinite=1, step_s_by_rank=[1.0])
    panels = {panel.title: [each.name for each in panel.lines] for panel in status_panels([thinned([line], 10)[1]])}
    assert panels["Losses"] == ["discriminator", "generator"]
    assert panels["Penalties"] == ["r1", "path length"]
    assert panels["novelty"] == ["novelty"]
    assert panels["loss generator nonfinite"] == ["loss generator nonfinite"]
    assert not any("rank" in title or title in ("kimg", "step") for title in panels)


def test_the_verb_writes_the_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "a")
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'} (")
    assert cli.main(["report", str(run), "--out", str(tmp_path / "none" / "x.html")]) == 2
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is not a run's folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["report", "--out"], ["plot", "--y", "fd_classifier", "--tex"]])
def test_no_file_of_a_run_is_taken_for_the_target(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    before = (run / "log.jsonl").read_bytes()
    assert cli.main([words[0], str(run), *words[1:], str(run / "log.jsonl")]) == 2
    assert "its name has to end in" in capsys.readouterr().err
    assert (run / "log.jsonl").read_bytes() == before


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    (run / "report.html").write_text("old")

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert cli.main(["report", str(run)]) == 2
    assert "report.html cannot be written: No space left on device" in capsys.readouterr().err
    assert (run / "report.html").read_text() == "old"
    assert not list(run.glob(".*aside*"))


def test_without_the_extra_it_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a")
    monkeypatch.setattr(extra.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["report", str(run)]) == 2
    said = capsys.readouterr().err
    assert "(jinja2 and plotly not installed)" in said
    assert "pip install 'bigtrain[report]'" in said


def test_events_are_on_the_axis(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    write_log(tmp_path, [start(), status(640), event("rollback", 320, reason="loss", from_images=640, salt=1)])
    marks = data_of(render(read_runs([tmp_path])))["runs"][0]["events"]
    assert [(mark["kind"], mark["images"], mark["steps"]) for mark in marks] == [("start", 0, 0), ("rollback", 320, 10)]
    assert marks[1]["text"] == "loss; went back from 640 images, salt 1"


def test_short_films_move_on_the_page(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 128, 255)]
    frames[0].save(tmp_path / "way.gif", save_all=True, append_images=frames[1:])
    raw = base64.b64encode((tmp_path / "way.gif").read_bytes()).decode()
    assert encoded([tmp_path / "way.gif"], 100_000)[tmp_path / "way.gif"].uri == f"data:image/gif;base64,{raw}"


def test_verdicts_of_an_audit_stand_before_its_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    nearest = {
        "suspicious": True,
        "verdict": "copies: 9 of 10",
        "distances": [1.23456789, 2.0],
        "matrix": [[1, 2], [3, 4]],
    }
    write_json(run / "audits" / "000000064000.json", {"images_seen": 64000, "nearest": nearest})
    ((part,),) = [section["parts"] for section in page.audit_sections(read_runs([run]))]
    assert (part["title"], part["verdict"], part["is_suspicious"]) == ("nearest", "copies: 9 of 10", True)
    assert part["rows"] == [("distances", "[1.235, 2]")]
    assert part["matrices"][0]["cells"] == [[("1", 25), ("2", 50)], [("3", 75), ("4", 100)]]
    text = without_scripts(render(read_runs([run])))
    assert text.index("suspicious</span>") < text.index("copies: 9 of 10") < text.index("all numbers")


def test_transparent_and_palette_pictures_are_taken(tmp_path: Path) -> None:
    for mode in ("RGBA", "P", "L", "I;16"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode[0]}{len(mode)}.png")
    assert len(encoded(sorted(tmp_path.iterdir()), 100_000)) == 4
