"""Alarms of a real toy run: into log and webhook, the last good checkpoint pinned, and back where the recipe asks."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from bigtrain.engine.ranks import Ranks
from bigtrain.networks.layers.singular import largest_weights
from bigtrain.training.health import alarms, monitors
from bigtrain.training.health.webhook import Webhook
from bigtrain.training.hooks.evaluate import Evaluate
from bigtrain.training.log import read_log
from bigtrain.training.loop import train
from bigtrain.training.run import Run
from bigtrain.training.saving import save
from tests.rank_pool import run_ranks
from tests.training.toy_runs import play, toy_overrides, toy_run

ONSET_STEP = 10
OPTIONS = ("total_images=192", "log={every_images: 16, tensorboard: false}", "checkpoint.every_images=32")


def hit_generator(run: Run) -> None:
    """Make the generator a constant: what comes before its last layer hardly depends on the latent any more."""
    generator: Any = run.game.networks["generator"]
    generator.output_bn.gain.mul_(1e-6)


def hit_singular_value(run: Run) -> None:
    """Blow one weight up, which spectral normalisation hides from the images."""
    next(iter(largest_weights(run.game.networks["discriminator"], 1).values())).mul_(10)


HITS = {"diversity": hit_generator, "singular_values": hit_singular_value}


def collapsing(ranks: Ranks, overrides: list[str], what: str, once: bool) -> tuple[int, list[dict[str, Any]]]:
    """Train a run that collapses before step ONSET_STEP; return its salt and what rank 0's webhook was given."""
    inner, sent, hits = Run.end_step, [], []
    Webhook.post = lambda webhook, message: sent.append(dict(message))  # type: ignore[method-assign]
    for name, rule in monitors.RULES.items():
        monitors.RULES[name] = monitors.Rule(rule.monitor, rule.limit, rule.words, rule.is_floor, min(rule.fewest, 4))

    def end_step(run: Run) -> None:
        if run.progress.steps == ONSET_STEP - 1 and not (once and hits):
            hits.append(run.progress.steps)
            with torch.no_grad():
                HITS[what](run)
        inner(run)

    Run.end_step = end_step  # type: ignore[method-assign]
    return play(ranks, [*overrides, "watchdog.webhook=http://127.0.0.1:9/"]).salt, sent


def saved(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").glob("0*"))


@pytest.mark.parametrize(("what", "world"), [("diversity", 2), ("singular_values", 1)])
def test_a_collapse_is_alarmed_and_its_last_good_checkpoint_stays(
    digits: Path, tmp_path: Path, what: str, world: int
) -> None:
    results = run_ranks(world, collapsing, toy_overrides(digits, tmp_path, *OPTIONS), what, False)
    assert [salt for salt, _ in results] == [0] * world
    alarms = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "alarm"]
    assert {alarm["monitor"] for alarm in alarms} == {what}
    first = alarms[0]
    assert (first["step"], first["good_until_images"], first["pinned_images"]) == (ONSET_STEP, 144, 128)
    pin = (tmp_path / "checkpoints" / "000000000128" / "PINNED").read_text()
    assert pin.startswith("last good checkpoint before an alarm")
    assert saved(tmp_path) == [128, 160, 192]  # the two newest, and the pinned one
    messages = [message for message in results[0][1] if message["event"] == "alarm"]
    assert [message["images_seen"] for message in messages] == [alarm["images_seen"] for alarm in alarms]
    assert json.dumps(messages)
    assert all(not sent for _, sent in results[1:])


def test_a_recipe_may_ask_for_a_rollback_on_an_alarm(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, *OPTIONS, "watchdog.rollback_on=[diversity]")
    ((salt, sent),) = run_ranks(1, collapsing, overrides, "diversity", True)
    assert salt == 1
    assert [message["event"] for message in sent] == ["alarm", "rollback"]
    (rollback,) = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "rollback"]
    assert (rollback["images_seen"], rollback["from_images"]) == (128, 160)
    last = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "status"][-1]
    assert last["sample_diversity"] > 0.05


def flapping(ranks: Ranks, overrides: list[str], alarms: int) -> list[int]:
    """Raise an alarm after every second checkpoint of a run; return which checkpoints are pinned at its end."""
    run = toy_run(ranks, overrides)
    run.hooks.append(Flap())
    train(run)
    pinned = run.checkpoints.pinned()
    run.close()
    assert all(reason.startswith("last good checkpoint before an alarm") for reason in pinned.values())
    assert len(Flap.onsets) == alarms
    return sorted(pinned)


class Flap:
    """A hook that pins as an alarm does."""

    onsets: ClassVar[list[int]] = []

    def due(self, run: Run) -> bool:
        return run.progress.images_seen % 32 == 0

    def run(self, run: Run) -> None:
        save(run)
        self.onsets.append(run.progress.images_seen)
        alarms._pin_before(run, self.onsets[-1], monitors.Finding("diversity", "diversity", 0.0, "made up"))


def test_an_alarm_that_comes_and_goes_keeps_the_first_checkpoint_and_the_newest(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(
        digits, tmp_path, "total_images=256", "log.every_images=1024", "checkpoint.every_images=32"
    )
    assert run_ranks(1, flapping, overrides, 8) == [[32, 192, 224, 256]]
    assert {64, 96, 128}.isdisjoint(saved(tmp_path))


def worse_evaluation(ranks: Ranks, overrides: list[str]) -> None:
    """Train while the third evaluation is three times as bad as the first."""
    inner, seen = Evaluate._evaluate, []

    def evaluate(hook: Evaluate, run: Run, average: str) -> Any:
        evaluation = inner(hook, run, average)
        seen.append(run.progress.images_seen)
        name = next(iter(evaluation.figures))
        evaluation.figures[name] = 30.0 if len(seen) == 3 else 10.0
        return evaluation

    Evaluate._evaluate = evaluate  # type: ignore[method-assign]
    play(ranks, overrides)


def test_an_evaluation_twice_as_bad_pins_the_checkpoint_of_the_one_before(digits: Path, tmp_path: Path) -> None:
    evaluate = (
        "evaluate={every_images: 96, num_images: 40, batch_images: 16, standing_batches: 1, standing_images: 16, "
        "kernel: {subsets: 2, subset_size: 20}, extractor: {kind: random}}"
    )
    overrides = toy_overrides(digits, tmp_path, evaluate, "total_images=320", "checkpoint.every_images=32")
    run_ranks(1, worse_evaluation, overrides)
    (alarm,) = [event for event in read_log(tmp_path / "log.jsonl") if event["event"] == "alarm"]
    assert alarm["monitor"] == "evaluation"
    assert (alarm["images_seen"], alarm["good_until_images"]) == (288, 192)
    # Four checkpoints later the one of the evaluation before would be gone without the pin that moves along.
    assert alarm["pinned_images"] == 192
    assert (tmp_path / "checkpoints" / "000000000192" / "PINNED").read_text().startswith("last good checkpoint before")


def test_a_healthy_run_raises_nothing_and_keeps_one_checkpoint_at_most_besides(digits: Path, tmp_path: Path) -> None:
    run_ranks(1, play, toy_overrides(digits, tmp_path, *OPTIONS))
    events = read_log(tmp_path / "log.jsonl")
    assert not [event for event in events if event["event"] in ("alarm", "rollback")]
    lines = [event for event in events if event["event"] == "status"]
    assert all(0 < line["sample_diversity"] < 3 for line in lines)
    assert all(line["singular_value_generator"] > 0 < line["singular_value_discriminator"] for line in lines)
    assert saved(tmp_path) == [160, 192]
