"""The judge of the quickstart passes real digits and nothing less."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from bigtrain.games.base import DataFacts
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.load import load_recipe
from bigtrain.training.schema import Recipe
from bigtrain.training.snapshot import SNAPSHOT_FORMAT
from tests.training.toy_runs import RECIPE, toy_overrides

PATH = Path(__file__).parent.parent / "tools" / "check_digits.py"


@pytest.fixture(scope="module")
def tool():
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("check_digits", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def real():
    """1,000 real digits in turn of their labels, [N, 64] in 0..16, and the labels."""
    digits = load_digits()
    by_label = [digits.data[digits.target == label][:100] for label in range(10)]
    return np.stack(by_label, axis=1).reshape(1000, 64), np.arange(1000) % 10


def as_images(digit_NF, side=32, channels=1):
    """Real digits as uint8 images whose box average is the digit again, to the nearest level."""
    small_NHW = np.rint(digit_NF.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    large_NHW = small_NHW.repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    return np.repeat(large_NHW[:, None], channels, axis=1)


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (8, 1), (64, 3)])
def test_images_become_digits_of_8_by_8_in_0_to_16(tool, real, side, channels):
    digit_NF, _ = real
    assert np.abs(tool.to_digits(as_images(digit_NF, side, channels)) - digit_NF).max() <= 16 / 255 / 2 + 1e-9


def test_a_box_is_averaged_not_sampled(tool):
    image = np.zeros((1, 1, 32, 32), np.uint8)
    image[0, 0, 4:8, 8:10] = 255  # half of one box: row 1, column 2
    digit = tool.to_digits(image)[0].reshape(8, 8)
    assert digit[1, 2] == pytest.approx(8.0)
    assert digit.sum() == pytest.approx(8.0)


def test_a_side_that_does_not_divide_is_refused(tool):
    with pytest.raises(ValueError, match="images of 30 px cannot be averaged to 8x8"):
        tool.to_digits(np.zeros((1, 1, 30, 30), np.uint8))


def test_spread_is_the_mean_distance_of_two_different_images(tool):
    digit_NF = np.zeros((20, 64))
    digit_NF[::2, 0] = 3.0  # in each class two images, (3, 0, ...) and (0, 4, ...): distance 5
    digit_NF[1::2, 1] = 4.0
    assert tool.spread_within_classes(digit_NF, np.arange(20) // 2) == pytest.approx(5.0)


def test_real_digits_pass(tool, real):
    verdict = tool.judge(tool.to_digits(as_images(real[0])), real[1])
    assert verdict.accuracy > 0.99
    assert verdict.num_good_classes == 10
    assert verdict.spread == pytest.approx(verdict.real_spread, rel=0.1)
    assert verdict.passed
    assert "verdict             passed" in tool.verdict_text(verdict)


def test_wrong_labels_do_not_pass(tool, real):
    verdict = tool.judge(real[0], (real[1] + 1) % 10)
    assert verdict.accuracy < 0.05
    assert "NOT passed" in tool.verdict_text(verdict)


def test_one_image_a_class_does_not_pass(tool, real):
    digit_NF = np.tile(real[0][:10], (100, 1))
    verdict = tool.judge(digit_NF, real[1])
    assert verdict.accuracy >= 0.9
    assert verdict.spread == 0.0
    assert not verdict.passed


def test_two_lost_classes_do_not_pass(tool):
    good = dict(spread=20.0, real_spread=25.0)
    assert tool.Verdict(0.95, (1.0,) * 9 + (0.5,), **good).passed
    assert not tool.Verdict(0.95, (1.0,) * 8 + (0.75, 0.75), **good).passed
    assert not tool.Verdict(0.89, (0.89,) * 10, **good).passed


def test_final_figures_and_files_of_a_run_are_named(tool, tmp_path):
    for name in ("000000000064", "000000000128"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / ".bad-000000000256").mkdir()
    (tmp_path / "log.jsonl").write_text(
        '{"event": "status", "images_seen": 64, "loss_generator": 1.0}\n'
        '{"event": "status", "images_seen": 128, "loss_generator": 0.5}\n'
        '{"event": "end", "images_seen": 128}\n'
    )
    text = tool.run_text(tmp_path)
    assert "images_seen 128  loss_generator 0.5" in text
    assert f"checkpoint          {tmp_path / 'checkpoints' / '000000000128'}" in text
    assert f"log                 {tmp_path / 'log.jsonl'}" in text
    assert f"none in {tmp_path / 'samples'}" in text


def write_untrained(path, num_classes):
    """Write a snapshot of the toy recipe for images of so many classes, as no training would leave it."""
    recipe = load_recipe(RECIPE, toy_overrides(path.parent, path.parent), Recipe)
    game = recipe.game.build(DataFacts(ImageSpec(32, 1, num_classes), None))
    tensors = {
        f"average/{recipe.ema[0].name}/{name}/{key}": tensor.contiguous()
        for name in game.averaged
        for key, tensor in game.networks[name].state_dict().items()
    }
    record = {
        "progress": {"images_seen": 0},
        "recipe": recipe.model_dump(mode="json"),
        "class_names": [str(label) for label in range(num_classes)],
        "label_counts": None,
        "image": {"side": 32, "channels": 1, "num_classes": num_classes},
        "versions": {},
    }
    save_file(tensors, path, metadata={"format": SNAPSHOT_FORMAT, "record": json.dumps(record)})


@pytest.mark.parametrize("num_classes", [0, 3, 12])
def test_a_run_on_other_than_ten_classes_is_one_sentence_and_status_2(tool, tmp_path, monkeypatch, capsys, num_classes):
    path = tmp_path / "snapshot.safetensors"
    write_untrained(path, num_classes)
    monkeypatch.setattr(sys, "argv", ["check_digits.py", str(path)])
    assert tool.main() == 2
    assert capsys.readouterr() == (
        "",
        f"{path} was trained on images of {num_classes} classes, but the judge asks for digits of 10 classes; name a "
        "run on the shards of `bigtrain shards digits`\n",
    )


def test_what_is_no_run_is_one_sentence_and_not_the_status_of_bad_digits(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_digits.py", str(tmp_path / "nowhere")])
    assert tool.main() == 4
    assert "holds no usable checkpoint; name a run folder" in capsys.readouterr().err
