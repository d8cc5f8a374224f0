"""Which evaluation counts as best: by a named figure, of one protocol and the averages that count."""

import json
from pathlib import Path
from typing import Any

import pytest

from bigtrain.engine.checkpoints.rollbacks import present_records
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.retention import (
    WatchedRetention,
    best_images,
    newest_winner,
    ranking,
    sentence_of_best,
)
from bigtrain.training.schema import Recipe
from tests.training.toy_runs import RECIPE, TOY

TWO_AVERAGES = "ema=[{halflife_images: 100}, {halflife_images: 200}]"
EVALUATED = "evaluate={every_images: 32, extractor: {kind: classifier}}"


def recipe(*overrides: str) -> Recipe:
    return load_recipe(RECIPE, [*TOY, TWO_AVERAGES, EVALUATED, *overrides], Recipe)


def put(run: Path, images: int, figures: dict[str, Any], average: str = "ema-100", num: int = 50, **more: Any) -> None:
    facts = {"num_generated": num, "sampling": {"average": average}}
    path = run / "evaluations" / f"{images:012d}-fd_classifier-{num}-{average}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images_seen": images, "figures": figures, "protocol": facts, **more}))


def best(run: Path, settings: Recipe, among: list[int]) -> dict[int, str]:
    return best_images(ranking(present_records(run), settings), among, settings.checkpoint.keep_best)


def test_best_compares_one_average_and_one_protocol(tmp_path: Path) -> None:
    put(tmp_path, 10, {"fd_classifier": 0.1}, num=40)  # an older protocol
    put(tmp_path, 20, {"kd_classifier": 9.0, "fd_classifier": 3.0})  # the first figure in a file says nothing
    put(tmp_path, 30, {"fd_classifier": 0.2}, average="ema-200")
    put(tmp_path, 40, {"fd_classifier": float("nan")})
    put(tmp_path, 50, {"fd_classifier": 2.0})
    put(tmp_path, 60, {"fd_classifier": 0.3}, num=70, by="watch")  # a watcher with another protocol
    assert list(ranking(present_records(tmp_path), recipe()).records) == [20, 50]
    assert best(tmp_path, recipe("checkpoint.keep_best=2"), [10, 20, 30, 50, 60]) == {
        50: "fd_classifier 2 of ema-100", 20: "fd_classifier 3 of ema-100",
    }  # fmt: skip


def test_a_figure_of_which_more_is_better_can_rank(tmp_path: Path) -> None:
    put(tmp_path, 10, {"fd_classifier": 1.0, "recall": 0.2})
    put(tmp_path, 20, {"fd_classifier": 2.0, "recall": 0.8})
    put(tmp_path, 30, {"fd_classifier": 0.5})
    by_recall = recipe("checkpoint={keep_best: 1, keep_best_by: recall}")
    assert list(best(tmp_path, by_recall, [10, 20, 30])) == [20]
    assert list(best(tmp_path, recipe("checkpoint.keep_best=1"), [10, 20])) == [10]


def test_any_average_may_make_a_checkpoint_the_best(tmp_path: Path) -> None:
    put(tmp_path, 10, {"fd_classifier": 1.0})
    put(tmp_path, 20, {"fd_classifier": 2.0})
    put(tmp_path, 20, {"fd_classifier": 0.5}, average="ema-200")
    assert list(best(tmp_path, recipe("checkpoint.keep_best=1"), [10, 20])) == [10]
    with_any = recipe("checkpoint={keep_best: 1, keep_best_average: any}")
    assert best(tmp_path, with_any, [10, 20]) == {20: "fd_classifier 0.5 of ema-200"}


def test_watchers_rank_where_the_training_does_not_give_the_figure(tmp_path: Path) -> None:
    put(tmp_path, 10, {"fd_classifier": 1.0})
    put(tmp_path, 20, {"fd_classifier": 2.0})
    put(tmp_path, 10, {"fid": 8.0}, num=60, by="watch")
    put(tmp_path, 20, {"fid": 7.0}, num=60, by="watch")
    by_fid = recipe("checkpoint={keep_best: 1, keep_best_by: fid}")
    assert list(best(tmp_path, by_fid, [10, 20])) == [20]
    unevaluated = recipe("checkpoint.keep_best=1", "evaluate=null")
    put(tmp_path, 30, {"kid": 0.1, "fid": 9.0}, num=60, by="watch")
    assert list(best(tmp_path, unevaluated, [10, 20])) == [20], "by the Frechet distance that was taken last"


def test_evaluations_of_a_part_that_the_run_went_back_from_do_not_count(tmp_path: Path) -> None:
    put(tmp_path, 10, {"fd_classifier": 3.0})
    put(tmp_path, 20, {"fd_classifier": 1.0})  # then the run went back to 10
    put(tmp_path, 30, {"fd_classifier": 2.0}, salt=1)
    (tmp_path / "checkpoints").mkdir()
    rollbacks = tmp_path / "checkpoints" / "rollbacks.json"
    rollbacks.write_text(json.dumps([{"from_images": 25, "to_images": 10, "salt": 1, "reason": "bad"}]))
    assert list(ranking(present_records(tmp_path), recipe()).records) == [10, 30]
    rollbacks.write_text("{")
    assert list(ranking(present_records(tmp_path), recipe()).records) == [10, 20, 30], (
        "a damaged list is a start's to complain of"
    )


def test_an_unknown_figure_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        RecipeError, match="'fd_clasifier' is no figure that checkpoints are ranked by; did you mean 'fd_classifier'"
    ):
        recipe("checkpoint.keep_best_by=fd_clasifier")
    with pytest.raises(RecipeError, match="known: frechet, fid, kid"):
        recipe("checkpoint.keep_best_by=x")


def test_the_sentence_of_the_best_names_evaluation_and_average(tmp_path: Path) -> None:
    assert sentence_of_best(tmp_path, recipe()) is None
    put(tmp_path, 10, {"fd_classifier": 1.0})
    assert sentence_of_best(tmp_path, recipe()) == "evaluated best by fd_classifier: ema-100 after 10 images (1)"
    put(tmp_path, 20, {"fd_classifier": 3.0})
    put(tmp_path, 20, {"fd_classifier": 2.0}, average="ema-200")
    assert sentence_of_best(tmp_path, recipe()) == (
        "evaluated best by fd_classifier: ema-100 after 10 images (1); in the end ema-200 (2; ema-100 3)"
    )


def test_the_newest_winner_is_the_trainings_own(tmp_path: Path) -> None:
    assert newest_winner(tmp_path) is None
    put(tmp_path, 10, {"fd_classifier": 1.0}, best_average="ema-100")
    put(tmp_path, 20, {"fd_classifier": 3.0}, best_average="ema-200")
    put(tmp_path, 20, {"fd_classifier": 2.0}, average="ema-200", best_average="ema-200")
    put(tmp_path, 30, {"fd_classifier": 2.0}, by="watch")
    winner = newest_winner(tmp_path)
    assert winner is not None
    assert (winner.average, winner.images_seen) == ("ema-200", 20)


def test_a_watchers_evaluation_is_not_the_one_that_the_training_owes(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from bigtrain.engine.ranks import Ranks
    from bigtrain.recipe.progress import Progress
    from bigtrain.training.owed import is_evaluation_owed, owe_evaluation

    (tmp_path / "evaluations").mkdir()
    progress = Progress(steps=2, images_seen=32, salt=1)
    run = SimpleNamespace(
        folder=tmp_path, recipe=recipe(), progress=progress, images_before_step=16, is_done=False,
        launch=SimpleNamespace(ranks=Ranks.single()), write_aside=lambda what, action: action(),
    )  # fmt: skip
    put(tmp_path, 32, {"fd_classifier": 1.0}, salt=1)
    put(tmp_path, 32, {"fd_classifier": 1.0}, average="ema-200", by="watch", salt=1)
    put(tmp_path, 32, {"fd_classifier": 1.0}, average="ema-200", num=60, salt=0)  # of the noise before
    assert is_evaluation_owed(run)  # type: ignore[arg-type]
    put(tmp_path, 32, {"fd_classifier": 1.0}, average="ema-200", salt=1)
    assert not is_evaluation_owed(run)  # type: ignore[arg-type]
    put(tmp_path, 32, {"fd_classifier": 1.0}, num=70, by="watch", salt=1)
    owe_evaluation(run)  # type: ignore[arg-type]
    left = [json.loads(path.read_text()) for path in sorted((tmp_path / "evaluations").iterdir())]
    assert [(record.get("by"), record["salt"]) for record in left] == [(None, 0), ("watch", 1)]


def watch(run: Path, *protocols: str | None, **more: Any) -> None:
    """Put the lease of a living watcher: this process."""
    from dataclasses import asdict

    from bigtrain.engine.processes.holder import Holder

    (run / "watchers").mkdir(exist_ok=True)
    names = None if protocols == (None,) else list(protocols)
    path = run / "watchers" / f"{len(list((run / 'watchers').iterdir()))}.json"
    path.write_text(json.dumps({"holder": asdict(Holder.own()), "protocols": names, **more}))


SAVED = [80, 70, 60, 50, 40, 30, 20, 10]  # keep_last keeps the first two in any case
A, B = "fd_classifier-50-ema-100", "fd_classifier-50-ema-200"


def test_what_a_living_watcher_has_not_evaluated_stays_up_to_the_bound(tmp_path: Path) -> None:
    watched = WatchedRetention(tmp_path, recipe("checkpoint={keep_unevaluated: 3}"))
    assert watched.wanted(SAVED) == set(), "nobody watches"
    watch(tmp_path, A, B)
    assert watched.wanted(SAVED) == {60, 50, 40}
    assert watched.take_let_go() == [30, 20, 10]
    assert watched.take_let_go() == []
    put(tmp_path, 50, {"fd_classifier": 1.0}, by="watch")
    assert watched.wanted(SAVED) == {60, 50, 40}, "one average of two is not all"
    put(tmp_path, 50, {"fd_classifier": 1.0}, average="ema-200", by="watch")
    assert watched.wanted(SAVED) == {60, 40, 30}


def test_watchers_that_want_no_checkpoints_or_have_given_up_hold_nothing(tmp_path: Path) -> None:
    watch(tmp_path, A, checkpoints=False)
    watch(tmp_path, A, given_up=[60, 40])
    assert WatchedRetention(tmp_path, recipe("checkpoint={keep_unevaluated: 3}")).wanted(SAVED) == {50, 30, 20}


def test_a_watcher_that_does_not_know_its_protocol_yet_holds_what_is_there(tmp_path: Path) -> None:
    watch(tmp_path, None)
    assert WatchedRetention(tmp_path, recipe("checkpoint={keep_unevaluated: 2}")).wanted(SAVED) == {60, 50}


def test_what_a_watcher_finds_best_stays_from_the_moment_it_is_evaluated(tmp_path: Path) -> None:
    watched = WatchedRetention(tmp_path, recipe("checkpoint={keep_best: 1, keep_unevaluated: 1}"))
    watch(tmp_path, A)
    put(tmp_path, 30, {"fd_classifier": 1.0})
    put(tmp_path, 60, {"fd_classifier": 2.0}, by="watch")
    assert watched.wanted(SAVED) == {30, 50}
    put(tmp_path, 50, {"fd_classifier": 0.5}, by="watch")
    assert watched.wanted(SAVED) == {50, 40}
