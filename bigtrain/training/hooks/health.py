"""The watchdog between steps: measures once a log period, before the status line, and compares ranks."""

from bigtrain.recipe.progress import crossed
from bigtrain.training.health.alarms import judge, report_webhook
from bigtrain.training.health.vitals import Vitals
from bigtrain.training.run import Run
from bigtrain.training.state import check_ranks, tensors_of


class Health:
    """Measures diversity and singular values, and judges them and the period's losses."""

    def __init__(self, run: Run) -> None:
        """Prepare what is measured against."""
        self._vitals = Vitals(run)
        players, averaged = run.game.players, set(run.game.averaged)
        self._critics = {name for name, networks in players.items() if not averaged & set(networks)}

    def due(self, run: Run) -> bool:
        """When `log.every_images` were crossed, and at the end; the status line of the same step shows the figures."""
        return crossed(run.recipe.log.every_images, run.images_before_step, run.progress.images_seen) or run.is_done

    def run(self, run: Run) -> None:
        """Measure and judge."""
        run.settle()
        report_webhook(run)
        vitals = self._vitals.measure(run)
        run.means.add(_summary(vitals))
        judge(run, "vitals", vitals | self._losses(run))

    def _losses(self, run: Run) -> dict[str, float]:
        found = {}
        for name, value in run.means.now().items():
            player = name.removeprefix("loss_")
            if name.startswith("loss_") and player in run.game.players:
                found[f"loss/{player}"] = value
                if player in self._critics:
                    found[f"critic/{player}"] = value
        return found


def _summary(vitals: dict[str, float]) -> dict[str, float]:
    """Return what a status line shows: the diversity, and the largest singular value of each network's weights."""
    summary = {"sample_diversity": vitals["diversity"]} if "diversity" in vitals else {}
    for name, value in vitals.items():
        if name.startswith("singular/"):
            key = f"singular_value_{name.split('/')[1].partition('.')[0]}"
            summary[key] = max(summary.get(key, value), value)
    return summary


class CompareRanks:
    """Compares what ranks must hold alike; before every checkpoint it is done in any case."""

    def due(self, run: Run) -> bool:
        """When `watchdog.check_ranks_every_images` were crossed."""
        period = run.recipe.watchdog.check_ranks_every_images
        return crossed(period, run.images_before_step, run.progress.images_seen)

    def run(self, run: Run) -> None:
        """Compare."""
        check_ranks(run, tensors_of(run))
