"""`bigtrain audit` on a toy run: what it writes and prints, what it asks the run's own networks, what it refuses."""

import json
import shutil

import pytest
import torch

import bigtrain
from bigtrain import cli
from bigtrain.data.batch import Batch
from bigtrain.data.digits import write_digits
from bigtrain.data.shards import ShardSet
from bigtrain.engine.checkpoints.files import read_checkpoint
from bigtrain.evaluation.audit.discriminator import Discriminator
from bigtrain.evaluation.audit.subject import Drawing, open_run
from bigtrain.games.base import DataFacts
from bigtrain.networks.layers.spectral import advance_power_iterations
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import build_game
from bigtrain.training.schema import Recipe
from tests.rank_pool import run_ranks
from tests.shard_factory import make_shards
from tests.training.toy_runs import RECIPE, play, toy_overrides

QUICK = ["--num", "128", "--extractor", "random"]
SECTIONS = ("nearest", "duplicates", "modes", "leakage", "discriminator")
GROUP = 4
STYLEGAN2 = (
    "game.generator={kind: stylegan2, channel_base: 64, channel_max: 8, latent_dim: 8, style_dim: 8}",
    "game.discriminator={kind: stylegan2, channel_base: 64, channel_max: 8}",
    "batchnorm_images=null",
    f"minibatch_std_images={GROUP}",
    "total_images=32",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The digits, written once."""
    folder = tmp_path_factory.mktemp("audit") / "digits"
    write_digits(folder)
    return folder


@pytest.fixture(scope="module")
def run_dir(shards):
    """A toy run of two steps with a held-out part and a discriminator that compares images."""
    folder = shards.parent / "runs" / "toy"
    run_ranks(1, play, toy_overrides(shards, folder, *STYLEGAN2))
    return folder


def built(shards, *more):
    """Return a toy recipe and its game, new."""
    recipe = load_recipe(RECIPE, toy_overrides(shards, shards / "none", *more), Recipe)
    return recipe, build_game(recipe, DataFacts(recipe.image.spec, (1,) * 10))


def test_an_audit_stands_in_the_run_folder_and_says_what_it_found(run_dir, capsys):
    assert cli.main(["audit", str(run_dir), "--num", "128"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(
        f"audit of {run_dir} after 32 images seen: 128 generated, 1,708 training and 89 held-out"
    )
    assert [line.split()[0] for line in printed if line and not line.startswith((" ", "/", "audit"))] == [*SECTIONS]
    record = json.loads((run_dir / "audits" / "000000000032.json").read_text())
    assert (record["images_seen"], record["salt"]) == (32, 0)
    assert record["protocol"]["sampling"] == {
        "truncation": "none", "average": "ema-3000", "label_law": "batch", "seed": 0,
        "standing": {"num_batches": 16, "batch_images": 256, "seed": 0},
    }  # fmt: skip
    # After two steps there are no digits yet, and the audit says so.
    assert record["leakage"]["suspicious"]
    assert record["leakage"]["accuracy"] < 0.5 < 0.9 < record["leakage"]["accuracy_real"]
    assert record["modes"]["suspicious"]
    assert not record["duplicates"]["suspicious"]
    assert {name: record["discriminator"][name]["num_images"] for name in ("training", "held_out", "generated")} == {
        "training": 128, "held_out": 88, "generated": 128,
    }  # fmt: skip
    for name in record["pictures"].values():
        assert (run_dir / "audits" / name).is_file()


def test_the_same_audit_twice_is_the_same_bytes(run_dir, tmp_path):
    first = run_dir / "audits" / "000000000032.json"
    if not first.is_file():  # this test alone
        assert cli.main(["audit", str(run_dir), "--num", "128"]) == 0
    second = tmp_path / "audit" / first.name
    assert cli.main(["audit", str(run_dir), "--num", "128", "--json", str(second)]) == 0
    assert second.read_bytes() == first.read_bytes()


def test_audited_images_are_those_that_sample_draws_for_their_labels(run_dir):
    batch = open_run(run_dir, None, Drawing(seed=3)).subject.generate(torch.tensor([5, 70]))
    model = bigtrain.load(run_dir)
    assert torch.equal(batch.image_NCHW, model.sample(index=[5, 70], seed=3))
    for place, index in enumerate((5, 70)):
        asked = model.sample(index=[index], labels=[int(batch.label_N[place])], seed=3)
        assert torch.equal(asked[0], batch.image_NCHW[place])


def test_the_discriminator_is_the_checkpoints_own(run_dir, shards):
    opened = open_run(run_dir, str(shards), Drawing())
    training = ShardSet.open(shards, 0.05, 0).training()
    batch = training.load(training.numbers()[:GROUP])
    _, game = built(shards, *STYLEGAN2)
    network = game.networks["discriminator"]
    tensors = read_checkpoint(opened.model.path).tensors
    prefix = "network/discriminator/"
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    seen = batch.on_device(torch.device("cpu"))
    with torch.no_grad():
        expected = network(seen.image_NCHW, seen.label_N)
    assert torch.allclose(opened.subject.discriminator(batch), expected, atol=1e-6)
    assert torch.equal(opened.subject.training.load([0, 3]).image_NCHW, batch.image_NCHW[[0, 3]])


def test_spectral_norms_are_those_of_the_next_turn(shards):
    recipe, game = built(shards)
    network = game.networks["discriminator"]
    state = {f"network/discriminator/{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    batch = ShardSet.open(shards).training().load(range(8))
    found = Discriminator.load(game, recipe, state)(batch)
    _, other = built(shards)
    expected = other.networks["discriminator"].eval()
    advance_power_iterations(expected)
    seen = batch.on_device(torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(found, expected(seen.image_NCHW, seen.label_N))


def test_images_are_compared_in_groups_as_in_training(run_dir, shards):
    discriminator = open_run(run_dir, None, Drawing()).subject.discriminator
    assert discriminator.group_images == GROUP
    training = ShardSet.open(shards, 0.05, 0).training()
    batch = training.load(training.numbers()[: 2 * GROUP + 3])
    whole = discriminator(batch)
    assert len(whole) == 2 * GROUP
    for first in (0, GROUP):
        part = training.load(training.numbers()[first : first + GROUP])
        assert torch.allclose(discriminator(part), whole[first : first + GROUP], atol=1e-5)
    shuffled = [0, 4, 1, 5, 2, 6, 3, 7]  # other company, other statistics
    mixed = discriminator(Batch(batch.image_NCHW[shuffled], batch.label_N[shuffled], batch.sample_N[shuffled]))
    assert not torch.allclose(mixed, whole[shuffled], atol=1e-5)


def test_batch_normalisation_runs_over_its_group(shards):
    """A DCGAN's discriminator: group by group as in training, and nothing is kept of it."""
    dcgan = "game.generator={kind: dcgan, width: 4, latent_dim: 8}", "game.discriminator={kind: dcgan, width: 4}"
    recipe, game = built(shards, *dcgan)
    state = game.networks["discriminator"].state_dict()
    tensors = {f"network/discriminator/{name}": tensor.clone() for name, tensor in state.items()}
    discriminator = Discriminator.load(game, recipe, tensors)
    assert discriminator.group_images == recipe.batchnorm_images == 8
    training = ShardSet.open(shards).training()
    both, second = training.load(range(16)), training.load(range(8, 16))
    assert torch.allclose(discriminator(both)[8:], discriminator(second), atol=1e-5)
    other = training.load([8, *range(7)])  # the same image in other company
    assert not torch.allclose(discriminator(other)[0], discriminator(second)[0], atol=1e-5)
    for name, tensor in game.networks["discriminator"].state_dict().items():
        assert torch.equal(tensor, tensors[f"network/discriminator/{name}"]), name


def test_a_snapshot_is_audited_without_its_discriminator(run_dir, tmp_path, capsys):
    snapshot = run_dir / "snapshots" / "000000000032.safetensors"
    out = tmp_path / "audit.json"
    assert cli.main(["audit", str(snapshot), *QUICK, "--json", str(out)]) == 0
    assert json.loads(out.read_text())["discriminator"] == {
        "suspicious": None,
        "verdict": "a snapshot holds no discriminator; name a checkpoint or a run",
    }
    capsys.readouterr()
    shutil.copy(snapshot, tmp_path / "copied.safetensors")
    assert cli.main(["audit", str(tmp_path / "copied.safetensors"), *QUICK]) == 2
    assert "lies in no run folder; say with --json where to write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--num", "many"], "--num many: not a number of images"),
        (["--num", "99"], "an audit needs 100 images"),
        (["--real", "no/such/folder"], "no/such/folder is no folder of shards"),
        (["--average", "ema-1"], "'ema-1' is no moving average"),
        (["--extractor", "randon"], "did you mean 'random'"),
        (["--standing", "16"], "--standing 16: not BATCHESxIMAGES"),
        (["--json", "/proc/none/x.json"], "/proc/none/x.json cannot be written"),
        (["--json", "/"], "/ is a folder"),
        (["--truncation", "resampel:0.5"], "did you mean 'resample'"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence_and_status_2(run_dir, capsys, words, sentence):
    assert cli.main(["audit", str(run_dir), *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_other_images_than_the_runs_own_and_a_launcher_are_refused(run_dir, tmp_path, capsys, monkeypatch):
    make_shards(tmp_path / "others", [20])
    assert cli.main(["audit", str(run_dir), *QUICK, "--real", str(tmp_path / "others")]) == 2
    assert "holds other images than those that" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["audit", str(run_dir), *QUICK]) == 2
    assert "an audit runs in one process" in capsys.readouterr().err
