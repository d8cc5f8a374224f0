"""`bigtrain plot`: pictures and tables for a paper."""

import re
from pathlib import Path

import pytest
from PIL import Image

from bigtrain import cli
from bigtrain.reports import extra, page
from bigtrain.reports.latex import escaped, latex
from bigtrain.reports.lines import lines_of, smoothed
from bigtrain.reports.plot import COLOURS, draw
from bigtrain.reports.run import read_runs

from .made_runs import PROTOCOL, make_run, write_evaluation


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs; the second one was also evaluated under a protocol of its own."""
    made = [make_run(tmp_path / "a", "one_50%"), make_run(tmp_path / "b", "two & $more$", phase=0.5)]
    write_evaluation(made[1], 64000, {"fd_classifier": 0.5}, "fd-2", {**PROTOCOL, "real_content": "9f" * 32})
    return made


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_it_draws_pictures_of_each_kind(tmp_path: Path, runs: list[Path], suffix: str, begins: bytes) -> None:
    out = tmp_path / f"plot.{suffix}"
    assert cli.main(["plot", *map(str, runs), "--y", "loss_generator,fd_classifier", "--out", str(out)]) == 0
    first = out.read_bytes()
    assert first.startswith(begins)
    assert cli.main(["plot", *map(str, runs), "--y", "loss_generator,fd_classifier", "--out", str(out)]) == 0
    assert out.read_bytes() == first  # no date in it


def test_a_picture_has_the_lines_of_both_runs_in_their_colours(tmp_path: Path, runs: list[Path]) -> None:
    text = draw(read_runs(runs), ["loss_generator"], "hours", "svg").decode()
    assert "one_50%" in text
    assert "two &amp; $more$" in text
    assert "hours of training" in text
    assert all(colour in text for colour in COLOURS[:2])
    (tmp_path / "plot.png").write_bytes(draw(read_runs(runs), ["loss_generator"], "images", "png"))
    with Image.open(tmp_path / "plot.png") as image:
        assert len(set(image.convert("RGB").get_flattened_data())) > 20


def test_lines_are_of_evaluations_or_of_the_log(runs: list[Path]) -> None:
    records = read_runs(runs)
    found = [(line.run, line.protocol, line.x, line.y) for line in lines_of(records, "fd_classifier", "images")]
    assert found == [
        (0, "fd-1", [32000, 64000], [2.0, 0.75]),
        (1, "fd-1", [32000, 64000], [2.5, 1.25]),
        (1, "fd-2", [64000], [0.5]),
    ]
    assert lines_of(records, "kd_classifier", "images")[0].error == [0.01, 0.01]
    assert lines_of(records, "fd_classifier", "steps")[0].x == [1000, 2000]
    logged = lines_of(records, "images_per_s", "hours")
    assert [(line.run, line.protocol, len(line.x)) for line in logged] == [(0, None, 16), (1, None, 16)]


def test_half_a_surrogate_pair_is_drawn_as_something_else(tmp_path: Path) -> None:
    made = make_run(tmp_path / "a")
    (made / "recipe.yaml").unlink()
    run = made.rename(tmp_path / "a\udcff")  # a folder whose name is no UTF-8
    assert draw(read_runs([run]), ["loss_generator"], "images", "png")
    assert latex(read_runs([run]), ["loss_generator"]).encode()


def test_smoothing_starts_unbiased() -> None:
    assert smoothed([4.0, 4.0, 4.0], 0.9) == pytest.approx([4.0] * 3)
    assert smoothed([1.0, 3.0], 0.5) == pytest.approx([1.0, (0.25 * 1 + 0.5 * 3) / 0.75])
    assert smoothed([1.0, 3.0], 0.0) == [1.0, 3.0]


def test_the_table_keeps_protocols_apart_and_in_footnotes(runs: list[Path]) -> None:
    first, second = latex(read_runs(runs), ["fd_classifier"]).split("\\end{tabular}")[:2]
    assert r"one\_50\% & 64,000 & \textbf{$0.75$} & \textbf{$0.1 \pm 0.01$} \\" in first
    assert r"two \& \$more\$ & 64,000 & $1.25$ & \textbf{$0.1 \pm 0.01$} \\" in first
    assert r"fd\_classifier $\downarrow$" in first
    assert (
        r"Protocol \texttt{fd-1}: extractor classifier; num\_generated 100; seed 0; sampling.average ema-3000." in first
    )
    assert r"two \& \$more\$ & 64,000 & $0.5$ \\" in second
    assert "real\\_content 9f9f9f9f9f9f...." in second


def test_the_table_of_a_figure_of_the_log_has_its_last_values(runs: list[Path]) -> None:
    text = latex(read_runs(runs), ["memory_gib"])
    assert r"one\_50\% & 64,000 & $0.8$ \\" in text
    assert r"memory\_gib: the last value in the log" in text


def test_latex_prints_any_name() -> None:
    assert escaped("a\\b{c}_d^e~f#g\nh") == (r"a\textbackslash{}b\{c\}\_d\textasciicircum{}e\textasciitilde{}f\#g h")


def test_it_says_by_which_protocols(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.tex"
    assert cli.main(["plot", *map(str, runs), "--y", "fd_classifier", "--tex", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(out),
        "fd_classifier: by fd-1, fd-2; they differ: these lines do not compare",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--y", "fd_clasifier", "--out", "x.pdf"], "'fd_clasifier' is not a figure of these runs; did you mean 'fd_c"),
        (["--y", "zzz", "--out", "x.pdf"], "they are: fd_classifier, kd_classifier, kd_classifier_std, loss_disc"),
        (["--y", "fd_classifier", "--out", "x.jpg"], "'.jpg' is no format of a plot; end its name in .pdf, .png, .svg"),
        (["--y", "fd_classifier"], "there is nothing to write; give --out FILE.pdf"),
        (["--y", ",", "--out", "x.pdf"], "--y names no figure"),
        (["--y", "fd_classifier", "--out", "x.pdf", "--smooth", "1"], "--smooth 1 is not a share"),
        (["--y", "fd_classifier", "--out", "none/x.pdf"], "there is no folder none"),
    ],
)
def test_wrong_words_are_a_sentence(
    runs: list[Path], words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs[0].parent)
    assert cli.main(["plot", *map(str, runs), *words]) == 2
    assert said in capsys.readouterr().err


def test_without_matplotlib_it_is_a_sentence(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extra.importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(runs[0].parent)
    assert cli.main(["plot", str(runs[0]), "--y", "fd_classifier", "--out", "x.pdf"]) == 2
    assert "this needs the extra `report` (matplotlib not installed)" in capsys.readouterr().err


def test_runs_have_the_same_colours_on_paper_as_on_the_page() -> None:
    css = (Path(page.__file__).parent / "templates" / "report.css").read_text()
    light = css[: css.index("@media")]
    assert tuple(re.findall(r"--run-\d: (#\w+)", light)) == COLOURS
