"""Figures: each kind by the door, equal bytes for equal commands, the model's own pixels, sentences for the rest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bigtrain
from bigtrain.cli import main as command_line
from bigtrain.evaluation.figures import FIGURES
from bigtrain.evaluation.figures.base import FigureSettings, Source, drawing
from bigtrain.sampling.files import save_png
from bigtrain.sampling.grids import grid
from bigtrain.training.codes import STYLE
from bigtrain.training.sampler import StandingSettings
from bigtrain.verbs.figures import KINDS
from tests.evaluation.toy_models import write_toy_snapshot

QUICK = StandingSettings(num_batches=1, batch_images=16)
QUICK_WORDS = ["--standing", "1x16"]


@pytest.fixture(scope="module", params=["biggan", "stylegan2", "unconditional", "labels only"])
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model of each kind."""
    return write_toy_snapshot(tmp_path_factory.mktemp("toy"), request.param)


@pytest.fixture(scope="module")
def biggan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_snapshot(tmp_path_factory.mktemp("biggan"), "biggan")


@pytest.fixture(scope="module")
def stylegan2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_snapshot(tmp_path_factory.mktemp("stylegan2"), "stylegan2")


def draw(path: Path, kind: str, **settings: object):
    """Return a drawing of a kind."""
    return drawing(kind, Source(path, FigureSettings(standing=QUICK, **settings)))


def test_the_help_lists_every_kind() -> None:
    assert list(KINDS) == FIGURES.names()


ALLOWED = {
    "biggan": {"arithmetic", "class-way", "classes", "images", "latent-way", "truncation"},
    "stylegan2": {"arithmetic", "class-way", "classes", "images", "latent-way", "mixing", "noise", "truncation"},
    "mlp": {"arithmetic", "images", "latent-way", "truncation"},
}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"lapse"}))
def test_every_kind_is_drawn_twice_alike_or_refused_with_a_sentence(
    snapshot: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bigtrain.load(snapshot)
    can = ALLOWED[model.recipe.game.generator.kind]
    if getattr(model.generator, "shared", True) is None and model.image.num_classes:
        can = can - {"class-way"}
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    statuses = [command_line(["figures", str(snapshot), kind, *QUICK_WORDS, "--out", str(path)]) for path in paths]
    said = capsys.readouterr().err
    if kind in can:
        assert statuses == [0, 0], said
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert len(np.unique(np.asarray(Image.open(paths[0])))) > 2
    else:
        assert statuses == [2, 2]
        assert said.count("\n") == 2, said
        assert not paths[0].exists()


def test_a_class_sheet_holds_the_sampled_images(biggan: Path) -> None:
    sheet = draw(biggan, "classes", labels=("7", "class 2"), columns=3).still()
    assert sheet.row_names == ("class 7", "class 2")
    model = bigtrain.load(biggan)
    for place, (label, number) in enumerate([(7, 0), (7, 1), (7, 2), (2, 0), (2, 1), (2, 2)]):
        expected = model.sample(index=[number], labels=[label], standing=QUICK)[0]
        assert (sheet.image_NCHW[place].int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("kind", ["latent-way", "class-way"])
def test_films_of_ways_begin_where_pictures_do_and_close_without_a_jump(biggan: Path, kind: str) -> None:
    drawn = draw(biggan, kind, steps=6, rows=2, columns=4, index=(1, 5) if kind == "latent-way" else None)
    assert drawn.frames is not None
    frames = [sheet.image_NCHW.float() for sheet in drawn.frames()]
    keys = 2 if kind == "latent-way" else 4
    assert len(frames) == 6 * keys
    still = drawn.still().image_NCHW.float()
    if kind == "latent-way":
        assert torch.equal(frames[0], still[[0, 4]])
        assert torch.equal(frames[6], still[[3, 7]])
    steps = [(frames[number] - frames[number - 1]).abs().mean() for number in range(len(frames))]  # 0: from the end
    assert 0 < steps[0] <= max(steps[1:]) * 1.5


def test_mixing_takes_the_named_layers_from_the_columns(stylegan2: Path) -> None:
    sheet = draw(stylegan2, "mixing", layers="0-2,3-7", rows=1, columns=2).still()
    model = bigtrain.load(stylegan2)
    codes = model.codes([0, 1, 2, 3])
    style_NLW = codes.parts[STYLE].clone()
    style_NLW[2, 0:3] = style_NLW[1, 0:3]
    style_NLW[3, 3:8] = style_NLW[0, 3:8]
    mixed = model.render(type(codes)({STYLE: style_NLW}))
    image_NCHW = sheet.image_NCHW.view(3, 3, *sheet.image_NCHW.shape[1:])
    assert (image_NCHW[0, 0] == 255).all()
    assert torch.equal(image_NCHW[1, 2], mixed[2])
    assert torch.equal(image_NCHW[2, 1], mixed[3])
    assert not torch.equal(mixed[2], model.render(codes)[2])
    assert sheet.row_names == ("", "0-2", "3-7")


def test_noise_that_is_taken_away_is_put_back(stylegan2: Path) -> None:
    source = Source(stylegan2, FigureSettings(realisations=8, rows=2))
    before = source.model.render(source.model.codes([0, 1]))
    sheet = drawing("noise", source).still()
    rows = sheet.image_NCHW.view(2, len(sheet.column_names), *sheet.image_NCHW.shape[1:])
    columns = dict(zip(sheet.column_names, rows.unbind(1), strict=True))
    assert torch.equal(columns["image"], before)
    assert torch.equal(source.model.render(source.model.codes([0, 1])), before)
    different = ["image", "noise 1", "noise 2", "none", "fine", "coarse"]
    assert len({columns[name].numpy().tobytes() for name in different}) == len(different)
    assert columns["deviation"].max() == 255
    for convolution in source.model.generator.modules():
        if hasattr(convolution, "noise_strength"):
            convolution.noise_strength.data.zero_()
    silent = drawing("noise", source).still().image_NCHW.view(2, len(sheet.column_names), *sheet.image_NCHW.shape[1:])
    assert torch.equal(silent[:, 0], columns["none"])
    assert silent[:, 4].max() == 0


def test_truncations_show_the_same_images_with_statistics_of_their_own(biggan: Path) -> None:
    sheet = draw(biggan, "truncation", truncation="resample:0.1,resample:2", index=(3,), labels=("1",)).still()
    model = bigtrain.load(biggan)
    for place, law in enumerate(["resample:0.1", "resample:2"]):
        expected = model.sample(index=[3], labels=[1], truncation=law, standing=QUICK)[0]
        assert (sheet.image_NCHW[place].int() - expected.int()).abs().max() <= 1
    assert sheet.title == "resample:"
    assert sheet.column_names == ("0.1", "2")


def test_a_time_lapse_is_cut_from_grids_and_drawn_from_snapshots(tmp_path: Path) -> None:
    for number in range(3):
        write_toy_snapshot(tmp_path, "biggan", images_seen=100 * (number + 1), seed=number)
        image_NCHW = torch.full((20, 1, 32, 32), 50 * number, dtype=torch.uint8)
        image_NCHW[::10] += 7
        save_png(tmp_path / "samples" / f"{100 * (number + 1):012d}.png", grid(image_NCHW, 10))
    cut = draw(tmp_path, "lapse", source="samples", columns=3)
    still = cut.still()
    assert still.column_names == ("100", "200", "300")
    assert [int(image.max()) for image in still.image_NCHW] == [7, 57, 107, 7, 57, 107]
    frames = list(cut.frames())  # type: ignore[misc]
    assert [frame.title for frame in frames[:3]] == ["100 images", "200 images", "300 images"]
    assert torch.equal(frames[-1].image_NCHW, frames[2].image_NCHW)
    drawn = draw(tmp_path, "lapse", columns=2, labels=("4",)).still()
    model = bigtrain.load(tmp_path / "snapshots" / "000000000300.safetensors")
    expected = model.sample(index=[0], labels=[4], standing=QUICK)[0]
    assert (drawn.image_NCHW[1].int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nois"], "did you mean 'noise'"),
        (["classes", "--steps", "3"], "has no use for --steps"),
        (["classes", "--labels", "dog"], "'dog' is no class"),
        (["classes", "--columns", "0"], "at least 1"),
        (["classes", "--columns", "1000000000000"], "--columns 1000000000000: at most 1,000 is possible"),
        (["latent-way", "--steps", "1000000000"], "--steps 1000000000: at most 10,000 is possible"),
        (["latent-way", "--index", "4"], "at least 2 images"),
        (["latent-way", "--index", "a"], "not a list of whole numbers"),
        (["latent-way", "--way", "slrep"], "did you mean 'slerp'"),
        (["arithmetic", "--index", "1,2"], "by threes"),
        (["images", "--out", "x.gif"], "does not move"),
        (["images", "--out", "x.avi"], "films end in"),
        (["images", "--truncation", "psi:0.5"], "no styles"),
        (["images", "--codes", "nothing.safetensors"], "cannot be read as codes"),
        (["lapse", "--out", "x.png"], "no run folder"),
        (["classes"], "add --out FILE.png"),
        (["classes", "--scale", "0"], "at least 1"),
        (["classes", "--scale", "65"], "at most 64"),
        (["images", "--index", "9223372036854775808"], "images have the numbers 0 to 9223372036854775807"),
        (["images", "--index=-1"], "images have the numbers 0 to"),
        (["images", "--out", "/proc/none/x.png"], "/proc/none/x.png cannot be written"),
        (["images", "--out", "."], "films end in"),
    ],
)
def test_wrong_questions_get_one_sentence(
    biggan: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line(["figures", str(biggan), *words, *QUICK_WORDS]) in (2, 4)
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_way_is_wrong_for_styles_too(stylegan2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["latent-way", "--way", "slrep", "--out", "x.png", *QUICK_WORDS]
    assert command_line(["figures", str(stylegan2), *words]) == 2
    assert "did you mean 'slerp'" in capsys.readouterr().err


def test_wrong_layers_get_a_sentence(stylegan2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for layers in ("5-9", "3-1", "x"):
        assert command_line(["figures", str(stylegan2), "mixing", "--layers", layers, "--out", "x.png"]) == 2
        assert "layers, which are 0 to 7" in capsys.readouterr().err
