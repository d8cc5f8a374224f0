"""Figures of runs as a picture for a paper: PDF, PNG or SVG, by matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigtrain.recipe.errors import UsageError
from bigtrain.reports.extra import needs_report_extra
from bigtrain.reports.lines import AXES, FigureLine, lines_of, smoothed
from bigtrain.reports.run import RunRecord

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

FORMATS = ("pdf", "png", "svg")
COLOURS = ("#0067a6", "#cc5200", "#00805c", "#b0578d", "#8a6d00", "#2a8fc9", "#5b4bb5", "#4d5560")  # as on the page
STYLES = ("-", "--", ":", "-.")  # a protocol each
PANEL_INCHES = (4.6, 3.0)
DOTS_PER_INCH = 200
PALE = 0.25
STYLE: "dict[RcKeyType, Any]" = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "bigtrain",  # the same figure gives the same bytes
}
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def format_of(path: Path) -> str:
    """Return the format that a file's name asks for.

    Raises:
        UsageError: it is none of FORMATS.
    """
    found = path.suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise UsageError(f"{path}: '.{found}' is no format of a plot; end its name in .{', .'.join(FORMATS)}")
    return found


def draw(
    records: Sequence[RunRecord], names: Sequence[str], axis: str, form: str, smooth: float = 0.0, log: bool = False
) -> bytes:
    """Return a picture: a panel a figure, a colour a run, a style of line a protocol.

    Args:
        records: the runs.
        names: of the figures; known ones.
        axis: images, steps or hours.
        form: pdf, png or svg.
        smooth: share of the past in an average of figures of the log, 0 to 1; their own lines stay, paler.
        log: whether the vertical axis is logarithmic.

    Raises:
        UsageError: matplotlib is not installed.
    """
    needs_report_extra("matplotlib")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        width, height = PANEL_INCHES
        figure = Figure((width * len(names), height), DOTS_PER_INCH, layout="constrained")
        for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True):
            _panel(axes, lines_of(records, name, axis), smooth)
            axes.set_xlabel(AXES[axis])
            axes.set_ylabel(name.replace("_", " "))
            axes.set_yscale("log" if log else "linear")
            if axis != "hours":
                axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        stream = io.BytesIO()
        figure.savefig(stream, format=form, metadata=UNDATED[form])
    return stream.getvalue()


def _panel(axes: Any, lines: Sequence[FigureLine], smooth: float) -> None:
    protocols = list(dict.fromkeys(line.protocol for line in lines))
    for line in lines:
        colour, style = COLOURS[line.run % len(COLOURS)], STYLES[protocols.index(line.protocol) % len(STYLES)]
        label = _spelled(line.label if len(protocols) == 1 else f"{line.label}, {line.protocol}")
        if line.protocol is not None:
            axes.errorbar(
                line.x, line.y, line.error, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.2,
                capsize=2, label=label,
            )  # fmt: skip
            continue
        if smooth:
            axes.plot(line.x, line.y, color=colour, linewidth=0.8, alpha=PALE)
        axes.plot(line.x, smoothed(line.y, smooth), color=colour, linestyle=style, linewidth=1.2, label=label)
    title = "protocols differ: not comparable" if len(protocols) > 1 else None
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), title=title, alignment="left")


def _spelled(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar begins mathematics, an underscore hides a label."""
    writable = text.encode(errors="replace").decode()  # half a surrogate pair, as names of folders may have
    shown = writable.replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown
