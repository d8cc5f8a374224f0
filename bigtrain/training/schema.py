"""The recipe: the union of all settings, and the rules that relate them."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator

import bigtrain.games.noise_to_image  # noqa: F401  (registers the game)
import bigtrain.networks  # noqa: F401  (registers the networks)
from bigtrain.data.balance import NO_BALANCE
from bigtrain.data.settings import DataSettings
from bigtrain.engine.ema import AverageSettings
from bigtrain.engine.optimizers import OPTIMIZERS
from bigtrain.games.base import GAMES, DataFacts
from bigtrain.metrics.figures import ranking_figures
from bigtrain.metrics.names import FRECHET, METRICS
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.networks.layers.minibatch_std import has_minibatch_std
from bigtrain.networks.layers.statistics import has_batchnorm
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import SAMPLES, ImageSpec
from bigtrain.recipe.registry import nearest
from bigtrain.recipe.settings import Count, PositiveCount, Settings
from bigtrain.sampling.truncation import Truncation, TruncationText
from bigtrain.training.health.watchdog import WatchdogSettings
from bigtrain.training.layout import Dealing

SCHEMA_VERSION = 1
PARTITIONED_WEIGHTS = (
    "partitions the weights themselves, and then a loss that holds a gradient (R1, path length) is wrong or fails; "
    "GANs fit without it: take zero1 or zero2"
)
REFUSED_ENGINES = {"zero3": "ZeRO-3", "fsdp": "FSDP", "fsdp2": "FSDP2"}
STYLEGAN2_GROUP = 4  # images that StyleGAN2's minibatch standard deviation compares


class ImageSettings(Settings):
    """What the images are; shards that hold others are refused."""

    side: int = Field(ge=4)
    """Height in pixels."""
    width: int | None = Field(default=None, ge=4)
    """Width in pixels; None: square."""
    channels: Literal[1, 3, 4]
    """Gray, RGB or RGBA."""
    num_classes: Count = 0
    """Labels are 0..num_classes-1; 0: images have no labels."""

    @property
    def spec(self) -> ImageSpec:
        """The same, as data and networks know it."""
        size = self.side, self.side if self.width is None else self.width
        return ImageSpec.of_size(size, self.channels, self.num_classes)


class CheckpointSettings(Settings):
    """When a run saves everything it needs to go on, and what it keeps."""

    every_images: PositiveCount = 100_000
    """Images between checkpoints."""
    every_minutes: float | None = Field(default=None, gt=0)
    """Also after this many minutes, as the main process's clock says; None: by images only."""
    before_time_limit_minutes: float | None = Field(default=5, ge=0)
    """Stop and save this many minutes, and the time that the last save took, before the time limit of a SLURM job (at
    most a quarter of what was left at the start), whether or not a signal announces it; None: by signals only."""
    keep_last: int = Field(default=2, ge=2)
    """How many of the newest checkpoints stay; at least 2, so that a damaged one has a good one before it."""
    keep_best: int = Field(default=0, ge=0)
    """How many checkpoints with the best evaluation stay besides."""
    keep_best_by: str = FRECHET
    """Name of the figure that says which evaluation is best, such as fid or recall; frechet: the first of
    `evaluate.metrics`, a Frechet distance. A figure that this recipe's `evaluate` does not give is taken from watchers'
    evaluations (`bigtrain evaluate RUN --watch`)."""
    keep_best_average: Literal["first", "any"] = "first"
    """Which averages count: the first of `ema`, or for each checkpoint the one that evaluated best."""
    keep_unevaluated: int = Field(default=5, ge=0)
    """How many checkpoints more stay at most while a watcher (`bigtrain evaluate RUN --watch`) has yet to evaluate
    them; of more, the oldest go unevaluated, and the log says so."""

    @field_validator("keep_best_by")
    @classmethod
    def _refuse_unknown_figure(cls, figure: str) -> str:
        known = [FRECHET, *ranking_figures(METRICS)]
        if figure not in known:
            close = nearest(figure, known)
            hint = f"did you mean '{close}'?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"'{figure}' is no figure that checkpoints are ranked by; {hint}")
        return figure


class SnapshotSettings(Settings):
    """Small files with averaged weights only, kept for good."""

    every_images: Count = 0
    """Images between snapshots; 0: none but the one at the end."""


class LogSettings(Settings):
    """What is logged and where it is projected to; `log.jsonl` is always written."""

    every_images: PositiveCount = 10_000
    """Images between status lines."""
    tensorboard: bool = True
    """Also write TensorBoard event files to the run folder."""
    wandb: bool = False
    """Also log to Weights & Biases (extra `wandb`; offline with WANDB_MODE=offline)."""


class SamplesSettings(Settings):
    """Grids of generated images from latents that stay the same over training."""

    every_images: Count = 50_000
    """Images between grids; 0: none but the one at the end."""
    columns: int = Field(default=10, ge=1)
    """Images a row; class-conditional grids have one row a class."""
    max_rows: int = Field(default=10, ge=1)
    """Rows at most."""
    truncation: TruncationText = Truncation()
    """Truncation of the grid's latents, such as resample:0.5."""


class Recipe(Settings):
    """One training run, whole."""

    schema_version: Literal[1] = SCHEMA_VERSION  # type: ignore[assignment]
    """Version of this schema."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, in logs and trackers."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, draws and data order."""
    run_dir: str | None = None
    """Folder of the run; None: runs/NAME."""
    total_images: PositiveCount
    """Images seen at which the run is done (rounded up to whole steps)."""
    batch_images: PositiveCount
    """Images of one optimizer step over all ranks."""
    max_micro_batch_images: PositiveCount | None = None
    """Most images of one micro-batch on one rank, from memory (the discriminator sees as many real and as many
    generated
    ones at once); None: no ceiling."""
    batchnorm_images: PositiveCount | None = None
    """Images that BatchNorm's statistics run over, exactly; required for networks that have BatchNorm."""
    minibatch_std_images: PositiveCount | None = None
    """Images that a minibatch standard deviation compares, exactly; required for networks that have one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of forward passes; parameters stay float32."""
    tf32: bool = False
    """Let float32 matrix products use TensorFloat-32 on GPUs that have it."""
    deterministic: bool = False
    """Ask torch for deterministic kernels (the CPU's are)."""
    compile: Literal["none", "default", "max-autotune"] = "none"
    """Mode of torch.compile for the loss functions of turns without a gradient penalty (without CUDA graphs); needs a
    C++ compiler."""
    engine: Literal["plain", "ddp", "zero1", "zero2"] = "plain"
    """One process; or one process a device: under DistributedDataParallel, or under DeepSpeed's ZeRO of stage 1 (each
    holds a part of the optimizers' moments) or 2 (of gradients too)."""
    timeout_minutes: float = Field(default=30, gt=0)
    """How long a rank may be silent or stand still before the others end the run and name it; three times as long, and
    at least ten minutes, until its first step is made."""
    image: ImageSettings
    """What the images are."""
    game: GAMES.union()  # type: ignore[valid-type]
    """The method: networks, turns and losses."""
    optimizers: dict[str, OPTIMIZERS.union()]  # type: ignore[valid-type]
    """One optimizer a player."""
    ema: tuple[AverageSettings, ...] = Field(min_length=1)
    """Moving averages of the generator's weights; samples and figures come from the first."""
    data: DataSettings
    """What is trained on."""
    evaluate: EvaluationSettings | None = None
    """Periodic evaluation; None: none."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    log: LogSettings = LogSettings()
    samples: SamplesSettings = SamplesSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    allow_change: tuple[str, ...] = ()
    """Keys in which a resume may differ from the run it resumes."""

    @field_validator("engine", mode="before")
    @classmethod
    def _refuse_partitioned_weights(cls, engine: object) -> object:
        if isinstance(engine, str) and engine in REFUSED_ENGINES:
            raise ValueError(f"{REFUSED_ENGINES[engine]} {PARTITIONED_WEIGHTS}")
        return engine

    @property
    def run_folder(self) -> Path:
        """Where the run writes."""
        return Path(self.run_dir or f"runs/{self.name}")

    @property
    def dealing(self) -> Dealing:
        """What the batch has to be dealt by."""
        keys = ("batchnorm_images", "minibatch_std_images")
        groups = tuple((key, getattr(self, key)) for key in keys if getattr(self, key) is not None)
        return Dealing(self.batch_images, self.max_micro_batch_images, groups, self.game.micro_batch_multiple)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the game until `total_images` are seen."""
        return -(-self.total_images // self.batch_images)

    def problems(self) -> Iterator[str]:
        """Yield one sentence for each rule between keys that this recipe breaks."""
        yield from self._batch_problems()
        yield from self._game_problems()
        yield from self.data.problems()
        if (self.game.takes == "unpaired") != (self.data.shards_b is not None):
            trains = f"{self.game.kind} trains on {SAMPLES[self.game.takes]}"
            yield (
                f"data.shards_b: names a second set, but {trains}; leave it out"
                if self.data.shards_b is not None
                else f"data.shards_b: is missing, but {trains}; name the second one"
            )
        if self.data.balance != NO_BALANCE and not self.image.num_classes:
            yield (
                f"data.balance: {self.data.balance} needs classes, but image.num_classes is 0; delete data.balance, or "
                "set image.num_classes"
            )
        if self.data.mode == "stream":
            yield from self._stream_problems()
        if self.precision == "fp16" and self.engine.startswith("zero"):
            yield (
                f"precision: fp16 scales the loss of each player, which engine: {self.engine} cannot; take precision: "
                "bf16, or engine: ddp"
            )
        if len({each.name for each in self.ema}) != len(self.ema):
            yield "ema: two averages have the same halflife_images; give each its own or drop one"
        if self.evaluate is not None and self.evaluate.measured[0].measure != FRECHET:
            yield (
                f"evaluate.metrics: begins with {self.evaluate.metrics[0]}, but checkpoints are judged by the first "
                "figure, the smaller the better; begin with a Frechet distance such as fid"
            )

    def _game_problems(self) -> Iterator[str]:
        """Build the networks without memory or weights, and say what does not fit."""
        players = self.game.players
        if set(self.optimizers) != set(players):
            yield (
                f"optimizers: {sorted(self.optimizers)} are not the players of {self.game.kind}; give one optimizer to "
                f"each of {sorted(players)}"
            )
        classes = self.image.num_classes
        try:
            with torch.device("meta"):
                game = self.game.build(DataFacts(self.image.spec, (1,) * classes or None))
        except RecipeError as error:
            yield from error.problems
            return
        for key, what, is_there in (
            ("batchnorm_images", "BatchNorm, whose statistics", has_batchnorm),
            ("minibatch_std_images", "a minibatch standard deviation, which", has_minibatch_std),
        ):
            if getattr(self, key) is None and any(is_there(network) for network in game.networks.values()):
                yield (
                    f"{key}: is missing, but a network of {self.game.kind} has {what} must run over a stated number of "
                    f"images on any hardware; add for example {key}: {self._example(key)}"
                )

    def _stream_problems(self) -> Iterator[str]:
        """Say what needs to know all samples, which streamed shards do not tell."""
        if self.game.takes == "pair":
            yield (
                f"data.mode: stream gives single images, but {self.game.kind} trains on {SAMPLES['pair']}; index the "
                "shards"
            )
        if self.evaluate is not None:
            yield (
                "evaluate: compares with all images that are trained on, which data.mode: stream cannot list; set "
                "evaluate: null, and have `bigtrain evaluate RUN --watch --real DIR` judge checkpoints against others"
            )
        if getattr(self.game, "fake_labels", "") == "empirical" and self.image.num_classes:
            yield (
                "game.fake_labels: empirical draws classes as often as the data has them, which data.mode: stream does "
                "not count; take uniform, or batch"
            )

    def _example(self, key: str) -> int:
        return self.batch_images if key == "batchnorm_images" else math.gcd(self.batch_images, STYLEGAN2_GROUP)

    def _batch_problems(self) -> Iterator[str]:
        dealing = self.dealing
        for key, group in (*dealing.groups, ("game's micro_batch_multiple", dealing.multiple)):
            if dealing.batch_images % group:
                near = max(group, round(dealing.batch_images / group) * group)
                yield (
                    f"batch_images: {dealing.batch_images} is not a multiple of {key} ({group}), so the last group "
                    f"would hold fewer images; the nearest multiple is {near}"
                )
