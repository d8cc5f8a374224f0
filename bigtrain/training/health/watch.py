"""What a run remembers of its own health; all of it is in the checkpoint."""

from collections.abc import Mapping
from typing import Any

from bigtrain.training.health.monitors import Monitors
from bigtrain.training.health.watchdog import Skips, WatchdogSettings


class Watch:
    """Skipped turns, the monitors' recent figures, and up to where each kind of measurement was healthy."""

    def __init__(self, settings: WatchdogSettings) -> None:
        self.skips = Skips(settings)
        self.monitors = Monitors(settings)
        self.healthy_images: dict[str, int] = {}
        """Kind of measurement ("vitals", "evaluation") -> images seen when it last found nothing wrong."""

    def good_until(self) -> dict[str, int]:
        """Return for each kind of measurement up to which images the run is known to be good: skipped turns count."""
        onset = self.skips.onset_images()
        return {kind: images if onset is None else min(images, onset) for kind, images in self.healthy_images.items()}

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {
            "skips": self.skips.record(),
            "monitors": self.monitors.record(),
            "healthy_images": self.healthy_images,
        }

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Put back what `record` returned."""
        self.skips.load_record(record["skips"])
        self.monitors.load_record(record["monitors"])
        self.healthy_images = dict(record["healthy_images"])
