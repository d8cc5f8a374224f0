"""From a recipe to a run: opens the data, builds game and engine, takes the run folder, resumes what is there."""

import torch

from bigtrain.data.feed import Feed
from bigtrain.data.shards import ShardSet
from bigtrain.data.stream.feed import StreamFeed
from bigtrain.data.stream.shards import StreamSet
from bigtrain.draws import seed_of
from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.ema import WeightAverages
from bigtrain.engine.engine import Engine, EngineSettings
from bigtrain.engine.heartbeat import whereabouts
from bigtrain.engine.precision import set_backend_precision
from bigtrain.engine.processes.launch import Launch
from bigtrain.engine.processes.preemption import Preemption, SignalWatch
from bigtrain.engine.trackers import Trackers
from bigtrain.games.base import DataFacts, Game
from bigtrain.recipe.errors import EXIT_REQUEUE, BigtrainError, DataError
from bigtrain.recipe.image import SAMPLES
from bigtrain.recipe.layout import Layout
from bigtrain.training.damage import Damage
from bigtrain.training.health.rollback import take_up_rollbacks
from bigtrain.training.health.watch import Watch
from bigtrain.training.health.webhook import Webhook
from bigtrain.training.hooks.checkpoint import SaveCheckpoint, SaveSnapshot
from bigtrain.training.hooks.evaluate import Evaluate
from bigtrain.training.hooks.health import CompareRanks, Health
from bigtrain.training.hooks.samples import SampleGrids
from bigtrain.training.hooks.status import ProgressBar, Status
from bigtrain.training.layout import choose_layout
from bigtrain.training.log import RunLog
from bigtrain.training.retention import WatchedRetention
from bigtrain.training.run import Hook, Run
from bigtrain.training.schema import Recipe
from bigtrain.training.state import restore


def tracker_names(recipe: Recipe) -> tuple[str, ...]:
    """Return the trackers a recipe asks for, by Accelerate's names."""
    return tuple(name for name in ("tensorboard", "wandb") if getattr(recipe.log, name))


def open_shards(recipe: Recipe) -> ShardSet | StreamSet:
    """Open the training part of the recipe's shards.

    Raises:
        DataError: the shards are missing, damaged, sorted by class, hold other images than the recipe says, or some
            without a label, which the game cannot learn from.
    """
    if recipe.data.mode == "stream":
        return recipe.data.stream(recipe.seed, recipe.image.spec)
    shards = recipe.data.build(recipe.seed)
    said, found = recipe.image.spec, shards.spec
    for key in ("side", "width", "channels", "num_classes"):
        ours, theirs = ("null" if each is None else each for each in (getattr(said, key), getattr(found, key)))
        if ours != theirs:
            raise DataError(
                f"image.{key}: {ours} in the recipe, but the shards in {recipe.data.shards} hold {theirs}; "
                f"set image.{key}={theirs}, or point data.shards at other shards"
            )
    taken, given = recipe.game.takes, shards.sample_kind
    if taken != given:
        raise DataError(
            f"game.kind: {recipe.game.kind} trains on {SAMPLES[taken]}, but {recipe.data.shards} holds "
            f"{SAMPLES[given]}; point data.shards at {SAMPLES[taken]}"
        )
    _refuse_unlabelled(recipe, "data.shards", shards)
    if shards.second is not None:
        _refuse_unlabelled(recipe, "data.shards_b", shards.second)
    return shards


def _refuse_unlabelled(recipe: Recipe, key: str, shards: ShardSet) -> None:
    num_unlabelled, game = shards.index.num_unlabelled, recipe.game
    if num_unlabelled and not game.takes_unlabelled:
        raise DataError(
            f"{key}: {num_unlabelled} of {shards.index.num_samples} samples of {shards.where} have no "
            f"label, and the game {game.kind} needs one of each; remove those and write the shards again, or write "
            "them without any labels (--labels none, --no-labels) to train without classes"
        )


def build_game(recipe: Recipe, facts: DataFacts) -> Game:
    """Return the recipe's game with weights drawn from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(recipe.seed, "weights"))
        game: Game = recipe.game.build(facts)
    return game


def open_feed(recipe: Recipe, shards: ShardSet | StreamSet, layout: Layout, on_gpu: bool) -> Feed:
    """Return what gives this rank its images: in the order that an index makes possible, or off a stream."""
    if isinstance(shards, StreamSet):
        return StreamFeed(shards, layout, recipe.data.num_workers, pin_memory=on_gpu)
    order = shards.order(recipe.seed, recipe.data.shuffle_window_shards, recipe.data.balance)
    return Feed(shards, order, layout, recipe.data.num_workers, pin_memory=on_gpu)


def facts_of(recipe: Recipe, shards: ShardSet | StreamSet) -> DataFacts:
    """Return what the game may know of the data; a stream tells no counts."""
    counts = None
    if recipe.image.num_classes and isinstance(shards, ShardSet):
        counts = tuple(shards.label_places(recipe.data.balance).tolist())
    return DataFacts(recipe.image.spec, counts, recipe.batch_images)


def build_engine(recipe: Recipe, game: Game, launch: Launch) -> Engine:
    """Return the engine over this rank's share of the batch.

    Raises:
        RecipeError: the batch does not fit the number of processes.
    """
    ranks = launch.ranks
    layout = choose_layout(recipe.dealing, ranks.rank, ranks.world)
    settings = EngineSettings(
        seed=recipe.seed,
        layout=layout,
        optimizers=recipe.optimizers,
        precision=recipe.precision,
        mirror=recipe.data.mirror,
        batchnorm_images=recipe.batchnorm_images,
        minibatch_std_images=recipe.minibatch_std_images,
        compile=recipe.compile,
    )
    return Engine(game, settings, launch)


def assemble(recipe: Recipe, launch: Launch, signals: SignalWatch | None = None, writes: bool = True) -> Run:
    """Return a run at its start, without hooks; every rank calls it.

    Args:
        recipe: of the run.
        launch: its processes.
        signals: what `watch()` returned; None: start to watch now.
        writes: whether the main process writes the log; False leaves the run folder as it is.

    Raises:
        BigtrainError: of the kind that says what is wrong with recipe, data, checkpoints or weights, before the first
        step.
    """
    set_backend_precision(recipe.tf32, recipe.deterministic)
    whereabouts.note("opening the data")
    shards = launch.ranks.together(lambda: open_shards(recipe))
    facts = facts_of(recipe, shards)
    whereabouts.note("building the networks")
    game = build_game(recipe, facts)
    engine = build_engine(recipe, game, launch)
    folder = recipe.run_folder
    on_gpu = launch.device.type == "cuda"
    run = Run(
        recipe=recipe,
        facts=facts,
        launch=launch,
        game=game,
        engine=engine,
        averages=WeightAverages(recipe.ema, game),
        shards=shards,
        feed=open_feed(recipe, shards, engine.layout, on_gpu),
        log=RunLog(folder / "log.jsonl", writes and launch.ranks.is_main),
        checkpoints=Checkpoints(folder / "checkpoints", launch.ranks, recipe.checkpoint.keep_last),
        preemption=Preemption(launch.ranks, signals),
        hooks=[],
        watch=Watch(recipe.watchdog),
        damage=Damage(recipe.data.max_bad_fraction),
    )
    shards.give_way_to(run.wait_on)
    return run


def build(recipe: Recipe, launch: Launch, signals: SignalWatch | None = None) -> Run:
    """Return a run that stands where its newest good checkpoint left it, or at the start; every rank calls it.

    Raises:
        BigtrainError: of the kind that says what is wrong with recipe, data, checkpoints or weights, before the first
        step.
    """
    run = assemble(recipe, launch, signals)
    run.watched = WatchedRetention(run.folder, recipe)
    run.checkpoints.wanted = run.watched.wanted
    whereabouts.note("loading a checkpoint", steps=0)
    checkpoint = run.checkpoints.load_newest()
    if checkpoint is None:
        run.log.resume_at(0, 0.0)  # what a start that was killed before its first checkpoint logged is played again
    else:
        restore(run, checkpoint)
        take_up_rollbacks(run)
    if run.is_complete:
        return run
    names = tracker_names(recipe)
    run.trackers = Trackers(launch.accelerator, names, recipe.name, run.folder, run.progress.images_seen)
    if recipe.watchdog.webhook is not None:
        run.webhook = Webhook(recipe.watchdog.webhook)
    whereabouts.note("preparing the hooks")
    try:
        run.hooks = build_hooks(run)
    except BigtrainError as stop:
        if stop.exit_status != EXIT_REQUEUE:  # else the loop agrees on the stop before its first step, and saves
            raise
    return run


def build_hooks(run: Run) -> list[Hook]:
    """Return the hooks in the order in which they run; the checkpoint comes last and covers what the others logged."""
    bar = ProgressBar()
    hooks: list[Hook] = [bar, CompareRanks(), Health(run), Status(run, bar), SampleGrids()]
    if run.recipe.evaluate is not None:
        hooks.append(Evaluate(run, run.recipe.evaluate))
    return [*hooks, SaveSnapshot(), SaveCheckpoint()]
