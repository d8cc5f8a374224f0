"""`bigtrain evaluate`: the figures of training, whatever the number of ranks; nothing half-made is used later."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from bigtrain.cli import main as command_line
from bigtrain.engine.checkpoints.names import MANIFEST
from bigtrain.engine.ranks import Ranks
from bigtrain.evaluation.judge import over_seeds
from bigtrain.evaluation.which import find_model
from bigtrain.recipe.errors import BigtrainError
from bigtrain.sampling.files import save_npz
from bigtrain.training.loaded import load
from tests.rank_pool import RankFailed, run_ranks
from tests.training.toy_runs import as_json

CHECKOUT = Path(__file__).parents[2]
HANG_LIMIT_S = 400


def evaluate(out: Path, *words: Any) -> dict[str, Any]:
    """Run the verb in this process and return what it wrote."""
    assert command_line(["evaluate", *map(str, words), "--json", str(out)]) == 0
    return as_json(out)


def enter(ranks: Ranks, words: list[str]) -> int:
    """Run the verb on a rank, which must leave no process group behind: its threads can abort an ending process."""
    status = command_line(["evaluate", *words])
    assert not dist.is_initialized()
    return status


def test_a_run_gets_the_figures_that_training_wrote(toy_run: Path, tmp_path: Path) -> None:
    written = {path.name: as_json(path) for path in (toy_run / "evaluations").iterdir()}
    assert len(written) == 2
    both = evaluate(tmp_path / "both.json", toy_run, "--average", "all")["evaluations"]
    for record in both:
        theirs = written[f"000000000160-{record['protocol_name']}.json"]
        assert record["figures"] == theirs["figures"]
        assert record["protocol"] == theirs["protocol"]
    snapshot = evaluate(tmp_path / "snapshot.json", toy_run / "snapshots" / "000000000160.safetensors")
    assert snapshot["figures"] == both[0]["figures"]


@pytest.mark.parametrize("world", [2, 3])
def test_figures_do_not_depend_on_ranks(toy_run: Path, tmp_path: Path, world: int) -> None:
    alone, shared = tmp_path / "alone.json", tmp_path / "shared.json"
    words = [str(toy_run), "--num", "70", "--truncation", "resample:0.7"]
    run_ranks(1, enter, [*words, "--cache", str(tmp_path / "a"), "--json", str(alone)])
    run_ranks(world, enter, [*words, "--cache", str(tmp_path / "b"), "--json", str(shared)])
    figures, theirs = as_json(alone)["figures"], as_json(shared)["figures"]
    assert figures == theirs


@pytest.mark.two_process
def test_a_launcher_shares_the_work(toy_run: Path, tmp_path: Path) -> None:
    alone = evaluate(tmp_path / "alone.json", toy_run)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1", "--multi_gpu"]
    command += ["--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "bigtrain"]
    command += ["evaluate", str(toy_run), "--json", str(tmp_path / "launched.json")]
    known = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=CHECKOUT, env=known, capture_output=True, text=True, timeout=HANG_LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert as_json(tmp_path / "launched.json")["figures"] == alone["figures"]
    assert done.stdout.count("fd_random ") == 1  # one rank speaks


def test_twice_is_the_same_value_and_another_batch_nearly(toy_run: Path, tmp_path: Path) -> None:
    first, second = (evaluate(tmp_path / f"{name}.json", toy_run) for name in "ab")
    assert first == second
    other = evaluate(tmp_path / "c.json", toy_run, "--batch", "7")
    for name in ("fd_random", "kd_random"):
        assert other["figures"][name] == pytest.approx(first["figures"][name], rel=1e-4)


def test_killed_half_way_it_leaves_nothing_that_is_used(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(tmp_path / "whole.json", toy_run, "--num", "70")
    out, cache = tmp_path / "out.json", tmp_path / "cache"
    words = [str(toy_run), "--num", "70", "--cache", str(cache), "--json", str(out)]
    for rank, at in ((0, 1), (1, 1)):
        monkeypatch.setenv("BIGTRAIN_FAULT", f"kill@evaluate:{at},rank={rank}")
        with pytest.raises(RankFailed):
            run_ranks(2, faulty, words, f"kill@evaluate:{at},rank={rank}")
        assert not out.exists()
    assert [path.name for path in cache.rglob("*aside*")] == []
    assert run_ranks(2, enter, words) == [0, 0]
    assert as_json(out)["figures"] == whole["figures"]


def faulty(ranks: Ranks, words: list[str], fault: str) -> int:
    """Run the verb on a rank, with a fault."""
    os.environ["BIGTRAIN_FAULT"] = fault
    return enter(ranks, words)


def test_images_that_a_generator_drew_are_judged_like_it(toy_run: Path, digits: Path, tmp_path: Path) -> None:
    images = load(toy_run).sample(100, seed=3)
    save_npz(tmp_path / "drawn.npz", images)
    asked = ["--real", digits, "--metrics", "fd_random,kd_random", "--cache", tmp_path / "cache"]
    drawn = evaluate(tmp_path / "a.json", tmp_path / "drawn.npz", *asked)
    assert drawn["protocol"]["num_generated"] == 100
    real = evaluate(tmp_path / "b.json", digits, *asked)
    assert real["figures"]["fd_random"] == pytest.approx(0, abs=1e-4)  # all real images against themselves
    assert drawn["figures"]["fd_random"] > 1
    some = evaluate(tmp_path / "c.json", digits, *asked, "--num", "60")
    assert 0 < some["figures"]["fd_random"] < drawn["figures"]["fd_random"]


def test_seeds_give_mean_and_deviation(toy_run: Path, tmp_path: Path) -> None:
    record = evaluate(tmp_path / "a.json", toy_run, "--num", "40", "--seeds", "3")
    single = evaluate(tmp_path / "b.json", toy_run, "--num", "40")
    assert record["by_seed"][0] == single["figures"]
    values = [figures["fd_random"] for figures in record["by_seed"]]
    assert len(set(values)) == 3
    assert record["figures"]["fd_random"] == pytest.approx(sum(values) / 3)
    assert record["protocol"]["sampling"]["seeds"] == [0, 1, 2]
    assert over_seeds([{"fid": 1.0}, {"fid": 3.0}]) == {"fid": 2.0, "fid_seeds_std": pytest.approx(2**0.5)}


def test_distances_within_classes_of_generated_and_of_given_images(
    toy_run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate(tmp_path / "a.json", toy_run, "--per-class")
    assert set(record["details"]["fd_random_per_class"]) == set("0123456789")
    assert record["protocol"]["metrics"] == ["fd_random", "kd_random", "fd_random_per_class"]
    asked = ["--real", digits, "--metrics", "fd_random", "--per-class", "--cache", tmp_path / "cache"]
    same = evaluate(tmp_path / "b.json", digits, *asked)
    within = same["details"]["fd_random_per_class"]
    assert len(within) == 10
    assert max(abs(each["distance"]) for each in within.values()) < 1e-3 < record["figures"]["fd_random_per_class"]
    drawn = tmp_path / "drawn.npz"
    save_npz(drawn, load(toy_run).sample(20, labels=[3, 4]), torch.arange(20) % 2 + 3)
    labelled = evaluate(tmp_path / "c.json", drawn, *asked)
    assert set(labelled["details"]["fd_random_per_class"]) == {"3", "4"}
    save_npz(drawn, load(toy_run).sample(20))
    assert command_line(["evaluate", str(drawn), *map(str, asked)]) == 2
    assert "per_class" in capsys.readouterr().err


def test_moments_of_real_images_go_out_and_come_back(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = tmp_path / "real.npz"
    images = evaluate(tmp_path / "a.json", toy_run, "--export-real", moments)
    back = evaluate(tmp_path / "b.json", toy_run, "--real", moments, "--metrics", "fd_random")
    assert back["figures"]["fd_random"] == pytest.approx(images["figures"]["fd_random"], rel=1e-9)
    assert "num_real" not in back["protocol"]
    assert command_line(["evaluate", str(toy_run), "--real", str(moments)]) == 2  # the recipe's kernel distance
    assert "needs the real images" in capsys.readouterr().err


def test_of_a_file_with_moments_and_images_each_serves_its_metrics(toy_run: Path, tmp_path: Path) -> None:
    moments, pictures, both = (tmp_path / f"{name}.npz" for name in ("moments", "pictures", "both"))
    evaluate(tmp_path / "a.json", toy_run, "--export-real", moments)
    drawn = load(toy_run).sample(20)
    save_npz(pictures, drawn)
    np.savez(both, arr_0=drawn.permute(0, 2, 3, 1).numpy(), **np.load(moments))
    asked = ["--metrics", "fd_random,fd_random_infinity,prdc", "--cache", tmp_path / "cache"]
    found = evaluate(tmp_path / "b.json", toy_run, "--real", both, *asked)
    to_images = evaluate(tmp_path / "c.json", toy_run, "--real", pictures, *asked)
    distances = evaluate(tmp_path / "d.json", toy_run, "--real", moments, "--metrics", "fd_random,fd_random_infinity")
    assert found["figures"] == to_images["figures"] | distances["figures"]
    assert found["figures"]["fd_random"] != to_images["figures"]["fd_random"]
    assert found["protocol"]["real_moments"] == {"random": distances["protocol"]["real_content"]}
    np.savez(both, arr_0=drawn.permute(0, 2, 3, 1).numpy(), mu=np.zeros(2048), sigma=np.eye(2048))  # of other features
    assert evaluate(tmp_path / "e.json", toy_run, "--real", both, *asked)["figures"] == to_images["figures"]


def test_held_out_images_may_be_the_reference(toy_run: Path, digits: Path, tmp_path: Path) -> None:
    record = evaluate(tmp_path / "a.json", toy_run, "--split", "held-out", "--real", digits)
    assert record["protocol"]["num_real"] == 10  # 5% of 200


def test_a_recorded_evaluation_lies_where_training_writes_them(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set((toy_run / "evaluations").iterdir())
    evaluate(tmp_path / "a.json", toy_run, "--num", "44", "--record")
    (new,) = set((toy_run / "evaluations").iterdir()) - before
    assert new.name.startswith("000000000160-fd_random-44-")
    facts = {"average": "ema-1000", "salt": 0, "by": "evaluate"}
    assert as_json(new) == {**as_json(tmp_path / "a.json"), **facts}
    new.unlink()
    written = {path: path.read_bytes() for path in before}
    evaluate(tmp_path / "b.json", toy_run, "--record")  # what training has written of the same is not replaced
    assert {path: path.read_bytes() for path in (toy_run / "evaluations").iterdir()} == written
    with_label = torch.zeros(5, 1, 32, 32, dtype=torch.uint8)
    save_npz(tmp_path / "x.npz", with_label)
    words = [str(tmp_path / "x.npz"), "--real", str(tmp_path / "x.npz"), "--metrics", "fd_random", "--record"]
    assert command_line(["evaluate", *words, "--cache", str(tmp_path / "cache")]) == 2
    assert "lies in no run folder" in capsys.readouterr().err


def test_what_was_judged_before_a_mistake_is_told(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.json"
    assert command_line(["evaluate", str(toy_run), str(tmp_path / "nowhere"), "--num", "40", "--json", str(out)]) == 6
    said = capsys.readouterr()
    assert "fd_random  " in said.out
    assert "nowhere is not there" in said.err
    assert not out.exists()


def test_figures_of_two_protocols_stand_in_two_tables(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(tmp_path / "a.json", toy_run, "--num", "40")
    evaluate(tmp_path / "b.json", toy_run, "--num", "44")
    capsys.readouterr()
    assert command_line(["evaluate", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    out = capsys.readouterr().out
    assert "2 protocols: figures of different tables do not compare" in out
    assert "protocol 1: num_generated 40" in out
    assert "protocol 2: num_generated 44" in out
    assert command_line(["evaluate", str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert "2 protocols" not in out
    assert out.count(" ema-1000 ") == 2


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["RUN", "--average", "ema"], 2, "'ema' is no moving average"),
        (["RUN", "--checkpoint", "3"], 4, "has no checkpoint and no snapshot of 3 images; it has: "),
        (["RUN", "--checkpoint", "best", "--by", "fidd"], 2, "--by fidd"),
        (["RUN", "--by", "fid"], 2, "add --checkpoint best"),
        (["RUN", "--metrics", "fidd"], 2, "did you mean 'fid'"),
        (["RUN", "--num", "2"], 2, "num_images"),
        (["RUN", "--num", "many"], 2, "--num many"),
        (["RUN", "--seeds", "0"], 2, "at least 1"),
        (["RUN", "--batch", "100000000"], 2, "--batch 100000000: a batch has 1 to 65,536 images"),
        (["RUN", "--batch", "0"], 2, "a batch has 1 to 65,536 images"),
        (["RUN", "--standing", "16x100000000"], 2, "--standing 16x100000000: a batch has 1 to 65,536 images"),
        (["RUNS", "--real", "NPZ"], 2, "name one run to be judged"),
        (["RUN", "--real", "RUNS"], 2, "holds runs ("),
        (["RUN", "--real", "nowhere"], 6, "nowhere is not there"),
        (["RUN", "--real", "NPZ"], 6, "bring both to one size"),
        (["NPZ", "--metrics", "fd_random"], 2, "name them with --real"),
        (["NPZ", "--real", "NPZ", "--truncation", "psi:0.5", "--metrics", "fd_random"], 2, "for generators"),
        (["NPZ", "--real", "NPZ", "--num", "50", "--metrics", "fd_random"], 2, "holds 5"),
        (["NPZ", "--real", "NPZ", "--average", "all"], 2, "leave that option out"),
        (["RUN", "--truncation", "psi:0.5"], 2, "psi"),
        (["nowhere.json"], 6, "nowhere.json cannot be read"),
        (["RUN", "--protocol", "adm", "--num", "1000"], 2, "--protocol adm fixes --num 50000"),
        (["RUN", "--num", "0"], 2, "num_images"),
        (["RUN", "--metrics", "fd_random, fd_random"], 2, "names one twice; leave it out"),
        (["NPZ", "--real", "NPZ", "--protocol", "adm"], 2, "holds 5 images, and --protocol adm needs 50000"),
        (["ONE", "--real", "NPZ", "--metrics", "fd_random"], 2, "holds 1 images, and 4 are needed"),
        (["NPZ", "--real", "NPZ", "--metrics", "fd_random", "--cache", "NPZ"], 2, "the cache "),
        (["NPZ", "--real", "NPZ", "--metrics", "fd_random", "--json", ""], 2, "--json . is a folder; name a file"),
        (["NPZ", "--real", "NPZ", "--metrics", "fd_random", "--seeds", "2"], 2, "leave --seeds out"),
        (["ODD"], 6, "holds no figures with their protocol"),
        (["UNNAMED"], 6, "holds no figures with their protocol"),
        (
            ["RUN", "--protocol", "stylegan-fid50k-full", "--truncation-curve", "resample:0.5:1:0.5"],
            2,
            "fixes --truncation none",
        ),
    ],
)
def test_wrong_questions_get_a_sentence(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, sentence: str
) -> None:
    save_npz(tmp_path / "x.npz", torch.zeros(5, 1, 16, 16, dtype=torch.uint8))
    save_npz(tmp_path / "one.npz", torch.zeros(1, 1, 16, 16, dtype=torch.uint8))
    facts = {"images_seen": 1, "figures": {"fid": "x"}, "protocol": {}}
    (tmp_path / "odd.json").write_text(json.dumps(facts))
    (tmp_path / "unnamed.json").write_text(json.dumps(facts | {"figures": {"fid": 1}, "protocol": {"named": "adm"}}))
    files = {"NPZ": "x.npz", "ONE": "one.npz", "ODD": "odd.json", "UNNAMED": "unnamed.json"}
    places = {"RUN": str(toy_run), "RUNS": str(toy_run.parent)} | {
        word: str(tmp_path / name) for word, name in files.items()
    }
    found = command_line(["evaluate", "--cache", str(tmp_path / "cache"), *(places.get(word, word) for word in words)])
    err = capsys.readouterr().err
    assert found == status, err
    assert sentence in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_best_is_read_from_the_evaluations(toy_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for images in (64, 128, 160):
        (run / "checkpoints" / f"{images:012d}").mkdir(parents=True)
        (run / "checkpoints" / f"{images:012d}" / MANIFEST).touch()
    for images, value in ((64, 3.0), (100, 1.0), (128, 2.0), (160, 4.0)):
        record = {
            "images_seen": images,
            "figures": {"fid": value, "precision": value},
            "average": "ema",
            "protocol": {},
        }
        (run / "evaluations").mkdir(exist_ok=True)
        (run / "evaluations" / f"{images:012d}-fid-1-x.json").write_text(json.dumps(record))
    assert find_model(run, "best", "fid").name == "000000000128"  # 100 is better and gone
    assert find_model(run, "best", "precision").name == "000000000160"
    assert find_model(run, "64").name == "000000000064"
    with pytest.raises(BigtrainError, match="no number of images|not newest, best"):
        find_model(run, "bset")


def test_best_goes_by_the_average_that_is_loaded(toy_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "evaluations").mkdir(parents=True)
    recipe = load(toy_run).recipe
    (run / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))
    first = recipe.ema[0].name
    for images, values in ((64, {first: 1.0, "ema-9": 5.0}), (128, {first: 2.0, "ema-9": 0.5})):
        (run / "checkpoints" / f"{images:012d}").mkdir(parents=True)
        (run / "checkpoints" / f"{images:012d}" / MANIFEST).touch()
        for average, value in values.items():
            sampling = {"sampling": {"average": average}}
            record = {"images_seen": images, "figures": {"fid": value}, "average": average, "protocol": sampling}
            (run / "evaluations" / f"{images:012d}-fid-1-{average.replace('-', '')}.json").write_text(
                json.dumps(record)
            )
    assert find_model(run, "best", "fid").name == "000000000064"
    assert find_model(run, "best", "fid", "ema-9").name == "000000000128"
    assert find_model(run, "best", "fid", "all").name == "000000000128"
