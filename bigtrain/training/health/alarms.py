"""Alarms: into the log, to the webhook, and the last good checkpoint pinned; the run rolls back where the recipe asks.

Every rank calls these with the same figures.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from bigtrain.training.health.monitors import Finding
from bigtrain.training.health.watchdog import DivergedError
from bigtrain.training.run import Run
from bigtrain.training.saving import pin_best

LAST_GOOD = "last good checkpoint: "  # of one kind of measurement; moves on while all is well
BEFORE_ALARM = "last good checkpoint before an alarm: "  # stays until a person removes the file PINNED
MOST_BEFORE_ALARM = 4  # of these: an alarm that comes and goes would fill the disk; the first stays, and the newest


def judge(run: Run, kind: str, figures: Mapping[str, float]) -> None:
    """Let the monitors see figures of one kind of measurement, and raise what alarms they find.

    Raises:
        DivergedError: an alarm that is listed in `watchdog.rollback_on`.
    """
    monitors = run.watch.monitors
    findings = monitors.see(figures)
    onset = run.watch.good_until().get(kind, 0)
    if not monitors.has_bad(figures):
        run.watch.healthy_images[kind] = run.progress.images_seen
    run.write_aside("the pins of the last good checkpoints", lambda: _pin_last_good(run))
    for finding in findings:
        run.write_aside("the pin before an alarm", partial(_pin_before, run, onset, finding))
        raise_alarm(run, finding, onset)
    grave = [finding for finding in findings if finding.monitor in run.recipe.watchdog.rollback_on]
    if grave:
        raise DivergedError(grave[0].reason, onset)


def raise_alarm(run: Run, finding: Finding, onset_images: int) -> None:
    """Put an alarm into the log and send it."""
    figures: dict[str, Any] = {
        "reason": finding.reason,
        "monitor": finding.monitor,
        "figure": finding.figure,
        "value": finding.value,
        "good_until_images": onset_images,
        "pinned_images": newest_saved(run, onset_images) if run.launch.ranks.is_main else None,  # who writes the log
    }
    run.log.event("alarm", run.progress, **figures)
    tell(run, "alarm", figures)


def tell(run: Run, event: str, figures: Mapping[str, Any]) -> None:
    """Send an event to the webhook, where there is one; the main process does it."""
    if run.webhook is None or not run.launch.ranks.is_main:
        return
    place = {"run": run.recipe.name, "images_seen": run.progress.images_seen, "step": run.progress.steps}
    run.webhook.post({"event": event, **place, **{name: _plain(value) for name, value in figures.items()}})


def report_webhook(run: Run) -> None:
    """Log what the webhook did not take."""
    for failure in run.webhook.failures() if run.webhook is not None else []:
        run.log.event("alarm", run.progress, reason=failure)


def newest_saved(run: Run, most_images: int) -> int | None:
    """Return the newest checkpoint of at most so many images, or None."""
    return next((images for images in run.checkpoints.saved() if images <= most_images), None)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and value - value != 0 else value  # JSON has no word for NaN


def _pin_last_good(run: Run) -> None:
    """Keep the newest checkpoint up to which each kind of measurement was healthy, and let go of earlier ones."""
    wanted = {kind: newest_saved(run, images) for kind, images in run.watch.good_until().items()}
    for kind, images in wanted.items():
        if images is not None:
            run.checkpoints.pin(images, f"{LAST_GOOD}{kind}")
    is_freed = False
    for images, reason in run.checkpoints.pinned().items():
        if reason.startswith(LAST_GOOD) and images not in wanted.values():
            run.checkpoints.unpin(images)
            is_freed = True
    if is_freed:
        pin_best(run)  # one of them may be wanted as the best


def _pin_before(run: Run, onset_images: int, finding: Finding) -> None:
    images = newest_saved(run, onset_images)
    if images is None or run.checkpoints.pinned().get(images, "").startswith(BEFORE_ALARM):
        return
    run.checkpoints.unpin(images)  # a pin that would move on, for one that stays
    run.checkpoints.pin(images, f"{BEFORE_ALARM}{finding.reason}")
    held = sorted(images for images, reason in run.checkpoints.pinned().items() if reason.startswith(BEFORE_ALARM))
    for surplus in held[1 : 1 + len(held) - MOST_BEFORE_ALARM]:
        run.checkpoints.unpin(surplus)
        pin_best(run)  # it may be wanted as the best
