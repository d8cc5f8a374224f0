"""`bigtrain project`: files, equal bytes for equal commands, the detection test, sentences for wrong words."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigtrain.cli import main as command_line
from bigtrain.sampling.grids import GAP_PIXELS

QUICK = ["--steps", "4", "--starts", "1", "--standing", "1x16"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("kind", ["biggan", "stylegan2"])
def test_a_projection_is_three_files_with_the_same_bytes_each_time(
    toy_runs: dict[str, Path], kind: str, picture: Path, tmp_path: Path
) -> None:
    run = str(toy_runs[kind])
    assert command_line(["project", run, str(picture), *QUICK]) == 0
    folder = toy_runs[kind] / "projections"
    names = {f"000000000064-odd{suffix}" for suffix in (".png", ".json", ".safetensors")}
    assert {path.name for path in folder.iterdir()} == names
    assert command_line(["project", run, str(picture), *QUICK, "--out", str(tmp_path / "again.png")]) == 0
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / f"again{Path(name).suffix}").read_bytes()
    record = json.loads((tmp_path / "again.json").read_text())
    assert record["distance"]["name"] == "discriminator"
    assert record["settings"]["steps"] == 4
    assert record["images"][0].keys() >= {"name", "distance", "start_distance", "pixel_rms_levels"}
    assert Image.open(tmp_path / "again.png").width == 3 * 64 + 2 * GAP_PIXELS


def test_figures_are_drawn_of_what_was_found(toy_runs: dict[str, Path], picture: Path, tmp_path: Path) -> None:
    run, out = str(toy_runs["biggan"]), tmp_path / "found.png"
    assert command_line(["project", run, str(picture), str(picture), *QUICK, "--out", str(out), "--scale", "1"]) == 0
    codes, drawn = str(out.with_suffix(".safetensors")), tmp_path / "drawn.png"
    words = ["--codes", codes, "--columns", "1", "--scale", "1", "--standing", "1x16", "--out", str(drawn)]
    assert command_line(["figures", run, "images", *words]) == 0
    side = 32
    found = np.asarray(Image.open(out))[-2 * side - GAP_PIXELS :, side + GAP_PIXELS : 2 * side + GAP_PIXELS]
    assert np.abs(found.astype(int) - np.asarray(Image.open(drawn)).astype(int)).max() <= 1
    words[words.index("--columns") : words.index("--columns") + 2] = ["--columns", "5"]
    assert command_line(["figures", run, "latent-way", *words]) == 0
    assert command_line(["figures", run, "classes", "--standing", "1x16"]) == 0
    assert (toy_runs["biggan"] / "figures" / "000000000064-classes.png").is_file()
    other = str(toy_runs["stylegan2"])
    assert command_line(["figures", other, "images", "--codes", codes, "--out", str(drawn)]) == 4


def test_generated_and_real_images_are_compared(
    toy_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare.png"
    assert command_line(["project", str(toy_runs["biggan"]), "--compare", "5", *QUICK, "--out", str(out)]) == 0
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["real_part"] == "held_out"
    for measure in ("distance", "pixel_rms_levels"):
        assert 0 <= record[measure]["auc"] <= 1
        assert len(record[measure]["generated"]["values"]) == len(record[measure]["real"]["values"]) == 5
    assert [len(images) for images in record["images"]] == [5, 5]
    assert Image.open(out).size == (660, 440)
    assert (tmp_path / "compare-real.png").is_file()
    assert "told apart with AUC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ([], 2, "name images to project, or --compare N"),
        (["PICTURE", "--compare", "3"], 2, "not both"),
        (["nothing.png"], 6, "nothing.png cannot be read"),
        (["PICTURE", "--space", "w"], 2, "has no styles"),
        (["PICTURE", "--space", "v"], 2, "--space v"),
        (["PICTURE", "--steps", "0"], 2, "--steps 0"),
        (["PICTURE", "--label", "12"], 2, "label 12 is no class"),
        (["PICTURE", "--distance", "vgg"], 2, "'vgg' is not a known distance"),
        (["PICTURE", "--out", "x.gif"], 2, "a projection is a .png"),
        (["--compare", "500"], 6, "has 89 images, not 500"),
        (["--compare", "0"], 2, "at least 1"),
        (["PICTURE", "--out", "PICTURE"], 2, "is one of the images to project"),
        (["PICTURE", "--steps", "100000", "--out", "/proc/none/x.png"], 2, "/proc/none/x.png cannot be written"),
    ],
)
def test_wrong_words_get_one_sentence(
    toy_runs: dict[str, Path],
    picture: Path,
    words: list[str],
    status: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = picture.read_bytes()
    given = [str(picture) if word == "PICTURE" else word for word in words]
    assert command_line(["project", str(toy_runs["biggan"]), *given, "--standing", "1x16"]) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1, said
    assert picture.read_bytes() == before


def test_a_missing_plotter_is_said_before_the_search(
    toy_runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command_line(["project", str(toy_runs["biggan"]), "--compare", "5"]) == 2
    assert "pip install 'bigtrain[report]'" in capsys.readouterr().err
