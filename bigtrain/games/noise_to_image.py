"""The game of Goodfellow et al. (2014, arXiv:1406.2661): a generator maps noise to images, a discriminator tells them
from real ones.

Unconditional, or class-conditional where the data has labels (Mirza and Osindero 2014, arXiv:1411.1784). One step is
`discriminator_turns` turns of the discriminator, each on the next real batch, then one turn of the generator; a lazy
penalty that is due follows its player's turns as a turn of its own.

Axes: N images, C channels, H height, W width, Z latent, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bigtrain.augment.registry import AUGMENTATIONS
from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.games.augmentation import AdaptiveStrength, draw_augmentation
from bigtrain.games.base import GAMES, DataFacts, GameSettings, Loss, LossFunction, SampleSettings, Turn
from bigtrain.games.penalties import Cast, PenaltiesSettings, Penalty
from bigtrain.games.scene import Drawn, Inputs, Scene, synthesise
from bigtrain.losses.adversarial import OBJECTIVES
from bigtrain.networks.layers.statistics import has_batchnorm
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.progress import Progress
from bigtrain.sampling.truncation import Truncation

Networks = Mapping[str, nn.Module]


@GAMES.add("noise_to_image")
class NoiseToImageSettings(GameSettings):
    """Settings of the noise-to-image game."""

    players: ClassVar[dict[str, tuple[str, ...]]] = {"discriminator": ("discriminator",), "generator": ("generator",)}

    kind: Literal["noise_to_image"] = "noise_to_image"
    """Which game."""
    generator: GENERATORS.union()  # type: ignore[valid-type]
    """The generator and its settings."""
    discriminator: DISCRIMINATORS.union()  # type: ignore[valid-type]
    """The discriminator and its settings."""
    objective: Literal[tuple(OBJECTIVES.names())] = "hinge"  # type: ignore[valid-type]
    """The adversarial loss of both players."""
    discriminator_turns: int = Field(1, ge=1)
    """Turns of the discriminator before each turn of the generator."""
    fake_labels: Literal["uniform", "empirical", "batch"] = "uniform"
    """Law of the labels of generated images: uniform over classes, as frequent as in an epoch of the data (see
    `data.balance`), or those of the real batch (and without one, as in sampling, as `empirical`)."""
    penalties: PenaltiesSettings = PenaltiesSettings()
    """What the players pay besides the objective."""
    augment: AUGMENTATIONS.union() | None = None  # type: ignore[valid-type]
    """What real and generated images go through before they are judged; None: nothing."""
    style_mixing: float = Field(0.0, ge=0, le=1)
    """Share of training's generated images with styles of two latents (StyleGAN2: 0.9); for generators with styles."""

    @property
    def micro_batch_multiple(self) -> int:
        """What the number of images of a micro-batch is a multiple of."""
        path_length = self.penalties.path_length
        return 1 if path_length is None else path_length.shrink

    def build(self, facts: DataFacts) -> "NoiseToImage":
        """Return the game with freshly initialised networks (from torch's generator).

        Raises:
            RecipeError: networks do not fit the images, or penalties the networks; one problem each, with its key path.
        """
        networks: dict[str, nn.Module] = {}
        problems: list[str] = []
        for name, settings in (("generator", self.generator), ("discriminator", self.discriminator)):
            try:
                networks[name] = settings.build(facts.image)
            except RecipeError as error:
                problems += [f"game.{name}: {problem}" for problem in error.problems]
        if self.augment is not None and self.penalties.consistency is not None:
            problems.append(
                "game.augment: consistency compares images as they are with augmented ones; remove one of both"
            )
        if self.style_mixing and "generator" in networks and not hasattr(networks["generator"], "mapping"):
            problems.append("game.style_mixing: this generator has no styles to mix; set it to 0")
        if problems:
            raise RecipeError(problems)
        try:
            penalties = list(self.penalties.build(Cast(networks["generator"], networks["discriminator"], facts)))
        except RecipeError as error:
            raise RecipeError([f"game.{problem}" for problem in error.problems]) from error
        return NoiseToImage(self, facts, networks, penalties)


class NoiseToImage:
    """Two players, `discriminator` and `generator`, of one network each."""

    def __init__(
        self,
        settings: NoiseToImageSettings,
        facts: DataFacts,
        networks: dict[str, nn.Module],
        penalties: list[Penalty],
    ) -> None:
        self.settings, self.facts, self.networks = settings, facts, networks
        self.objective = OBJECTIVES.get(settings.objective)
        self.players = settings.players
        self.averaged = ("generator",)
        self.penalties = {penalty.name: penalty for penalty in penalties}
        self.augmentation = settings.augment.build(facts.image.channels) if settings.augment is not None else None
        self.state = self._state()
        self.main_shares = {player: self._main_share(player) for player in self.players}
        # Batch statistics over real and generated images together would leak which is which.
        self._judges_together = not has_batchnorm(self.networks["discriminator"])
        self._losses: dict[str, LossFunction] = {
            "discriminator/main": self._discriminator_main,
            "generator/main": self._generator_main,
            **{f"{lazy.player}/{lazy.name}": self._lazy(lazy) for lazy in penalties if lazy.every > 1},
        }

    def _state(self) -> nn.Module:
        """Return what has to survive a restart: buffers of penalties, strength of the augmentation."""
        state = nn.ModuleDict(self.penalties)
        if self.facts.label_counts is not None:  # a constant, on the device once and for all
            state.register_buffer("label_counts", torch.tensor(self.facts.label_counts), persistent=False)
        if self.augmentation is not None:
            settings: Any = self.settings.augment
            state["augment"] = AdaptiveStrength(settings.adaptation, settings.strength, self.facts.batch_images)
            state["augmentation"] = self.augmentation  # constants, which follow the device
        return state

    def _of(self, player: str, lazy: bool) -> list[Penalty]:
        return [each for each in self.penalties.values() if each.player == player and (each.every > 1) == lazy]

    def _main_share(self, player: str) -> float:
        main = self.settings.discriminator_turns if player == "discriminator" else 1
        return main / (main + sum(1 / lazy.every for lazy in self._of(player, lazy=True)))

    def turns(self, progress: Progress) -> tuple[Turn, ...]:
        """Return the discriminator's turns, then the generator's, each player's due lazy penalties last."""
        discriminator = (self._main_turn("discriminator", "next"),) * self.settings.discriminator_turns
        generator = (self._main_turn("generator", self._generator_reads()),)
        due = {player: self._lazy_turns(player, progress) for player in self.players}
        return (*discriminator, *due["discriminator"], *generator, *due["generator"])

    def _main_turn(self, player: str, reads: Literal["next", "same", "none"]) -> Turn:
        terms = self._of(player, lazy=False)
        twice, full = any(each.differentiates_twice for each in terms), any(each.full_precision for each in terms)
        return Turn(player, "main", reads, twice, full)

    def _lazy_turns(self, player: str, progress: Progress) -> tuple[Turn, ...]:
        due = [lazy for lazy in self._of(player, lazy=True) if progress.steps % lazy.every == 0]
        return tuple(
            Turn(player, lazy.name, self._lazy_reads(lazy), lazy.differentiates_twice, lazy.full_precision)
            for lazy in due
        )

    def _lazy_reads(self, lazy: Penalty) -> Literal["same", "none"]:
        return "same" if self.settings.fake_labels == "batch" else lazy.reads

    def _generator_reads(self) -> Literal["next", "same", "none"]:
        if self.objective.needs_real_in_generator:
            return "next"
        return "same" if self.settings.fake_labels == "batch" else "none"

    def compile(self, compiler: Callable[[LossFunction], LossFunction]) -> None:
        """Compile the loss functions of turns that do not differentiate twice."""
        for player in self.players:
            if not self._main_turn(player, "none").differentiates_twice:
                self._losses[f"{player}/main"] = compiler(self._losses[f"{player}/main"])
        for lazy in self.penalties.values():
            if lazy.every > 1 and not lazy.differentiates_twice:
                name = f"{lazy.player}/{lazy.name}"
                self._losses[name] = compiler(self._losses[name])

    def loss(self, turn: Turn, networks: Networks, batch: Batch | None, draws: Draws, progress: Progress) -> Loss:
        """Return the loss of the turn over one micro-batch: draw, then compute."""
        value, stats = self._losses[turn.name](networks, self._inputs(turn, batch, draws))
        return Loss(value, stats)

    def _inputs(self, turn: Turn, batch: Batch | None, draws: Draws) -> Inputs:
        mix_from_N = self._mix_from(draws)
        due = [self.penalties[turn.loss]] if turn.loss in self.penalties else self._of(turn.player, lazy=False)
        return Inputs(
            latent_NZ=self.latents(draws),
            label_N=self.fake_labels(draws, batch),
            real_NCHW=None if batch is None else batch.image_NCHW,
            label_real_N=None if batch is None else self._labels(batch),
            other_latent_NZ=None if mix_from_N is None else self.latents(draws, "other_latent"),
            mix_from_N=mix_from_N,
            augment_real={} if batch is None else self._draw_augmentation(draws, "augment/real"),
            augment_fake=self._draw_augmentation(draws, "augment/fake"),
            extra={penalty.name: penalty.draw(draws) for penalty in due},
        )

    def _mix_from(self, draws: Draws) -> Tensor | None:
        """Return from which layer on each image's styles come from its other latent: uniform over 1..L-1 for a share of
        `style_mixing`, else L, which is none."""
        if not self.settings.style_mixing:
            return None
        num_styles: int = self.networks["generator"].num_styles  # type: ignore[assignment]
        is_mixed_N = draws.uniform("mix", 1)[:, 0] < self.settings.style_mixing
        return torch.where(is_mixed_N, 1 + draws.integers("mix_from", num_styles - 1, 1)[:, 0], num_styles)

    def _draw_augmentation(self, draws: Draws, stream: str) -> Drawn:
        if self.augmentation is None:
            return {}
        strength: Tensor = self.state["augment"].strength  # type: ignore[index]
        return draw_augmentation(self.augmentation, draws, stream, self.facts.image, strength)

    def _scene(self, networks: Networks, inputs: Inputs, learner: str) -> Scene:
        return Scene(networks, inputs, self.augmentation, self._judges_together, learner)

    def _discriminator_main(self, networks: Networks, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        scene = self._scene(networks, inputs, "discriminator")
        logit_real, logit_fake = scene.logits()
        value = self.objective.discriminator(logit_real, logit_fake)
        stats = {
            "logit_real": logit_real.detach().mean(),
            "logit_fake": logit_fake.detach().mean(),
            "sign_real": logit_real.detach().sign().mean(),
        }
        if self.augmentation is not None:
            stats["augment_strength"] = self.state["augment"].strength.clone()  # type: ignore[index]
        return self._with_terms("discriminator", scene, value, stats)

    def _generator_main(self, networks: Networks, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        scene = self._scene(networks, inputs, "generator")
        if self.objective.needs_real_in_generator:
            logit_real, logit_fake = scene.logits()
            value = self.objective.generator(logit_fake, logit_real)
        else:
            value = self.objective.generator(scene.judge_fake(scene.fake()))
        return self._with_terms("generator", scene, value, {})

    def _with_terms(
        self, player: str, scene: Scene, value: Tensor, stats: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the penalties that are paid in every turn; the objective's own value is what `loss_PLAYER` reports."""
        stats[f"loss_{player}"] = value.detach()
        for penalty in self._of(player, lazy=False):
            term = penalty.term(scene, scene.inputs.extra[penalty.name])
            value, stats = value + term.value, {**stats, **term.stats}
        return value, stats

    def _lazy(self, penalty: Penalty) -> LossFunction:
        def loss(networks: Networks, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
            term = penalty.term(self._scene(networks, inputs, penalty.player), inputs.extra[penalty.name])
            return penalty.every * term.value, term.stats

        return loss

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch.label_N if self.facts.image.num_classes else None

    def latents(self, draws: Draws, stream: str = "latent") -> Tensor:
        """Return standard normal latents [N, Z] of this turn's images."""
        return draws.normal(stream, int(self.networks["generator"].latent_dim))  # type: ignore[arg-type]

    def fake_labels(self, draws: Draws, real: Batch | None = None) -> Tensor | None:
        """Return labels [N] of generated images after the law `fake_labels`; None without classes."""
        num_classes = self.facts.image.num_classes
        if not num_classes:
            return None
        if self.settings.fake_labels == "batch" and real is not None:
            return real.label_N
        if self.settings.fake_labels == "uniform" or self.facts.label_counts is None:
            return draws.integers("label", num_classes)
        weight_K: Any = self.state.label_counts
        return draws.categorical("label", weight_K.to(draws.index_N.device))

    def after_turn(self, turn: Turn, stats: Mapping[str, Tensor]) -> None:
        """Let the penalties that were due and the augmentation's strength see the statistics."""
        is_main = turn.loss == "main"
        for penalty in self._of(turn.player, lazy=False) if is_main else [self.penalties[turn.loss]]:
            penalty.observe(stats)
        if is_main and turn.player == "discriminator" and self.augmentation is not None:
            self.state["augment"].observe(stats)  # type: ignore[index]

    def judge(self, networks: Networks, batch: Batch) -> Tensor:
        """Return the discriminator's logits for real images as they are."""
        logits: Tensor = networks["discriminator"](batch.image_NCHW, self._labels(batch))
        return logits

    def sample(self, networks: Networks, draws: Draws, settings: SampleSettings) -> Tensor:
        """Return images for truncated latents and the labels asked for (or drawn by the game's law).

        Raises:
            RecipeError: truncation in style space, but the generator has no styles, or fewer than are truncated.
        """
        generator: Any = networks["generator"]
        truncation = settings.truncation
        latent_NZ = truncation.apply(draws, int(generator.latent_dim))
        label_N = self.fake_labels(draws) if settings.label_N is None else settings.label_N
        if truncation.psi is None:
            image_NCHW: Tensor = generator(latent_NZ, label_N)
            return image_NCHW.float()
        require_styles(generator, truncation)
        w_NLW = generator.truncate(generator.mapping(latent_NZ, label_N), truncation.psi, truncation.cutoff)
        return synthesise(generator, w_NLW).float()


def require_styles(generator: Any, truncation: Truncation) -> None:
    """Refuse truncation in style space by a generator that has no styles, or fewer than are to be truncated.

    Raises:
        RecipeError: it does not fit; the sentence names what does.
    """
    if not hasattr(generator, "truncate"):
        raise RecipeError(f"truncation '{truncation}': this generator has no styles; use resample:0.5 or none")
    if truncation.cutoff is not None and truncation.cutoff > generator.num_styles:
        raise RecipeError(
            f"truncation '{truncation}' is for {truncation.cutoff} style layers, but this generator has "
            f"{generator.num_styles} styles; write at most '{replace(truncation, cutoff=generator.num_styles)}', or "
            f"'{replace(truncation, cutoff=None)}' for all"
        )
