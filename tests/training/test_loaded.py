"""Trained models for use: from runs, checkpoints and snapshots; sample i depends on (seed, i) and its label alone."""

from pathlib import Path

import pytest
import torch

import bigtrain
from bigtrain.cli import main as command_line
from bigtrain.recipe.errors import BigtrainError, CheckpointError, RecipeError, UsageError
from bigtrain.training.loaded import LoadedModel
from bigtrain.training.sampler import StandingSettings
from tests.rank_pool import run_ranks
from tests.training.toy_runs import play, toy_overrides

STANDING = StandingSettings(num_batches=2, batch_images=32)


@pytest.fixture(scope="module")
def run_dir(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run of ten steps."""
    folder = tmp_path_factory.mktemp("loaded") / "run"
    run_ranks(
        1, play, toy_overrides(digits, folder, "ema=[{halflife_images: 1k, rampup: 0.05}, {halflife_images: 100}]")
    )
    return folder


@pytest.fixture(scope="module")
def model(run_dir: Path) -> LoadedModel:
    """The toy run's model."""
    return bigtrain.load(run_dir)


def test_run_checkpoint_and_snapshot_draw_the_same_images(run_dir: Path, model: LoadedModel) -> None:
    expected = model.sample(4, labels=[3], standing=STANDING)
    assert expected.dtype == torch.uint8
    assert expected.shape == (4, 1, 32, 32)
    for path in (run_dir / "checkpoints" / "000000000160", run_dir / "snapshots" / "000000000160.safetensors"):
        assert torch.equal(bigtrain.load(path).sample(4, labels=[3], standing=STANDING), expected)


def test_an_image_does_not_depend_on_its_company(model: LoadedModel) -> None:
    many = model.sample(70, labels=[1, 2], standing=STANDING, seed=5)
    few = model.sample(index=[69, 3], labels=[2], standing=STANDING, seed=5)
    assert torch.equal(few, many[[69, 3]])


def test_seeds_labels_truncations_and_averages_differ(run_dir: Path, model: LoadedModel) -> None:
    base = model.sample(2, labels=[0], standing=STANDING)
    assert not torch.equal(base, model.sample(2, labels=[0], standing=STANDING, seed=1))
    assert not torch.equal(base, model.sample(2, labels=[1], standing=STANDING))
    assert not torch.equal(base, model.sample(2, labels=[0], standing=STANDING, truncation="resample:0.3"))
    assert torch.equal(base, model.sample(2, labels=["0"], standing=STANDING))  # and back: statistics stand anew
    other = bigtrain.load(run_dir, average="ema-100")
    assert not torch.equal(base, other.sample(2, labels=[0], standing=STANDING))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"count": 2, "labels": [10]}, UsageError, "classes are 0 to 9"),
        ({"count": 2, "labels": ["seven"]}, UsageError, "'seven' is no class"),
        ({"count": 2, "truncation": "resampel:0.5"}, RecipeError, "did you mean 'resample'"),
        ({"count": 2, "truncation": "resample"}, RecipeError, "threshold"),
        ({}, UsageError, "count"),
        ({"count": 0}, UsageError, "count of at least 1"),
    ],
)
def test_wrong_questions_get_a_sentence(
    model: LoadedModel, options: dict, error: type[BigtrainError], words: str
) -> None:
    with pytest.raises(error, match=words):
        model.sample(**options)


def test_paths_without_a_model_get_a_sentence(tmp_path: Path, run_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        bigtrain.load(tmp_path / "nothing")
    snapshot = run_dir / "snapshots" / "000000000160.safetensors"
    (tmp_path / "cut.safetensors").write_bytes(snapshot.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read as a snapshot"):
        bigtrain.load(tmp_path / "cut.safetensors")
    with pytest.raises(UsageError, match="ema-1000, ema-100"):
        bigtrain.load(run_dir, average="ema-5")


def test_the_verb_writes_grid_folder_and_npz(run_dir: Path, tmp_path: Path) -> None:
    grid, folder, npz = tmp_path / "grid.png", tmp_path / "single", tmp_path / "all.npz"
    common = ["sample", str(run_dir), "--standing", "2x32", "--labels", "0,1,2"]
    outputs = ["--out", str(grid), "--folder", str(folder), "--npz", str(npz)]
    assert command_line([*common, "--count", "6", "--columns", "3", *outputs]) == 0
    from numpy import load as load_npz
    from PIL import Image

    assert Image.open(grid).size == (3 * 32 + 2 * 2, 2 * 32 + 2)
    assert len(list(folder.glob("*.png"))) == 6
    arrays = load_npz(npz)
    assert arrays["arr_0"].shape == (6, 32, 32, 1)
    assert arrays["arr_1"].tolist() == [0, 1, 2, 0, 1, 2]
    assert command_line([*common, "--index", "5,3", "--folder", str(tmp_path / "chosen")]) == 0
    assert sorted(path.name for path in (tmp_path / "chosen").glob("*.png")) == ["000003.png", "000005.png"]


def test_a_way_starts_and_ends_at_the_sampled_images(model: LoadedModel, run_dir: Path, tmp_path: Path) -> None:
    way = model.interpolate((3, 5), labels=(2, 7), steps=5, standing=STANDING)
    assert way.shape == (5, 1, 32, 32)
    start, end = (model.sample(index=[n], labels=[k], standing=STANDING)[0] for n, k in ((3, 2), (5, 7)))
    assert (way[0].int() - start.int()).abs().max() <= 1  # another batch shape may round a pixel the other way
    assert (way[-1].int() - end.int()).abs().max() <= 1
    assert not torch.equal(way[1], way[2])
    arguments = ["--between", "3,5", "--labels", "2,7", "--steps", "4", "--standing", "2x32", "--out"]
    assert command_line(["sample", str(run_dir), *arguments, str(tmp_path / "way.png")]) == 0
    with pytest.raises(UsageError, match="between which two"):
        model.interpolate((3, 5))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "2"], "nowhere to write"),
        (["--index", "a,b", "--out", "x.png"], "not a list of whole numbers"),
        (["--standing", "3", "--out", "x.png"], "not BATCHESxIMAGES"),
        (["--standing", "1x100000000", "--out", "x.png"], "--standing 1x100000000: a batch has 1 to 65,536 images"),
        (["--count", "1000000000000", "--out", "x.png"], "--count 1000000000000: 1 to 10,000,000 are possible"),
        (["--columns", "1000000000", "--out", "x.png"], "--columns 1000000000: 1 to 10,000 are possible"),
        (["--columns=-1", "--out", "x.png"], "--columns -1: 1 to 10,000 are possible"),
        (["--between", "1,2", "--steps", "1000000000", "--out", "x.png"], "--steps 1000000000: 1 to 10,000 are"),
    ],
)
def test_the_verb_refuses_what_it_cannot_do(
    run_dir: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["sample", str(run_dir), *arguments]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
