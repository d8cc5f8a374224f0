"""One page of HTML about one run or several: everything in it, nothing fetched, nothing that a file says can run.

The page is rendered twice: without pictures, to know how many bytes are left for them, and with them. Its scripts are
named by their hashes in a content security policy, so that a browser runs these two, loads nothing and sends nothing.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bigtrain import __version__
from bigtrain.reports.extra import needs_report_extra
from bigtrain.reports.pictures import Shown, evenly, shared_out
from bigtrain.reports.run import RunRecord
from bigtrain.reports.sections import (
    audit_sections,
    curve_sections,
    evaluation_tables,
    event_rows,
    event_text,
    recipe_sections,
    run_rows,
)
from bigtrain.reports.series import (
    axes_of,
    evaluation_panels,
    place_of,
    points_of_each,
    rank_panels,
    status_panels,
    thinned,
)

TEMPLATES = Path(__file__).parent / "templates"
MOST_BYTES = 9_900_000  # of a page; 10 MB is the promise
MOST_FRAMES = 240  # of a time-lapse
DRAWN_OF_CURVES = ("law", "protocol", "lines", "names", "higher")
MOST_MARKS = 400  # events of a run that are marked on the axes; the newest of them


@dataclass(frozen=True)
class Frame:
    """A grid of the time-lapse."""

    images_seen: int
    path: Path


def render(records: Sequence[RunRecord], now: datetime | None = None) -> str:
    """Return the page.

    Args:
        records: of the runs, in the order of their colours.
        now: when it is made; None: now.

    Raises:
        UsageError: the packages of the extra `report` are not installed.
    """
    needs_report_extra("jinja2", "plotly")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    plotly = get_plotlyjs()
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    content = {
        **_content(records),
        "version": __version__,
        "made": (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        "style": (TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "scripts": [plotly, script],
        "hashes": [_hash(plotly), _hash(script)],
    }
    template = environment.get_template("report.html")

    def page(shown: dict[Path, Shown]) -> str:
        text = template.render(**content, data=_data(content, shown), shown=shown)
        return text.encode(errors="replace").decode()  # half a surrogate pair, as JSON and folders' names may have

    frames = [frame.path for each in content["frames"] for frame in each]
    budget = MOST_BYTES - len(page({}).encode())
    return page(shared_out({"stills": _stills(records), "frames": frames}, max(0, budget)))


def _content(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Return what the template shows, but for pictures."""
    panels = [*evaluation_panels(records)]
    most = points_of_each(len(records))
    columns = [thinned(record.status_lines, most)[1] for record in records]
    return {
        "title": records[0].label if len(records) == 1 else f"{len(records)} runs",
        "records": records,
        "frames": [[Frame(*pair) for pair in evenly(record.samples, MOST_FRAMES)] for record in records],
        "runs": run_rows(records),
        "panels": {
            "evaluation": panels,
            "training": status_panels(columns),
            "ranks": rank_panels(records, most),
        },
        "curves": curve_sections(records),
        "evaluations": evaluation_tables(records),
        "audits": audit_sections(records),
        "recipes": recipe_sections(records),
        "events": [event_rows(record) for record in records],
        "is_thinned": any(len(record.status_lines) > most for record in records),
        "points": most,
    }


def _data(content: Mapping[str, Any], shown: Mapping[Path, Shown]) -> dict[str, Any]:
    """Return what the page's script reads."""
    most = points_of_each(len(content["records"]))
    return {
        "runs": [
            {
                "name": record.label,
                "x": axes_of(thinned(record.status_lines, most)[0]),
                "events": _marks(record),
                "frames": [
                    {"images": frame.images_seen, "uri": shown[frame.path].uri, "width": shown[frame.path].width}
                    for frame in frames
                    if frame.path in shown
                ],
            }
            for record, frames in zip(content["records"], content["frames"], strict=True)
        ],
        "panels": {group: [asdict(panel) for panel in members] for group, members in content["panels"].items()},
        "curves": [{key: curve[key] for key in DRAWN_OF_CURVES} for curve in content["curves"]],
    }


def _marks(record: RunRecord) -> list[dict[str, Any]]:
    marked = [event for event in record.events if event["event"] not in ("status", "evaluation")]
    return [{"kind": event["event"], **place_of(event), "text": event_text(event)} for event in marked[-MOST_MARKS:]]


def _stills(records: Sequence[RunRecord]) -> list[Path]:
    """Return the pictures besides the time-lapse."""
    audits = [path for record in records for audit in record.audits[-1:] for path in audit.pictures.values()]
    return [*audits, *(path for record in records for paths in record.pictures.values() for path in paths)]


def _hash(script: str) -> str:
    """Return a script's hash as a content security policy has it; browsers read every line's end as a newline."""
    digest = hashlib.sha256(re.sub("\r\n?", "\n", script).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
