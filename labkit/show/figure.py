"""What all figures share: their alt text, their axes, and what tells settings apart."""

import base64
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import matplotlib.figure
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from labkit.core.words import minus, sentence
from labkit.show.remake import MIME
from labkit.store.groups import Runs, left_out
from labkit.store.run import Run

# Colour-blind safe (Okabe and Ito's palette as seaborn has it); settings differ in marker and
# line style as well, so that a grey print can be read.
CYCLES: dict[str, Sequence[Any]] = {
    "color": sns.color_palette("colorblind"),
    "marker": "osD^vP*",
    "ls": ("-", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1))),
}
INK = "#222222"
DASHED = (0, (4, 2))
PLAIN, THOUSANDS = (
    FuncFormatter(lambda value, _: f"{value:g}"),  # 0.05, not 5 × 10⁻²
    FuncFormatter(lambda value, _: f"{value:,.0f}"),
)

T = TypeVar("T")


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure with alt text, for readers who cannot see it and for exported pages."""

    alt: str = ""
    call: Mapping[str, Any] = {}  # how to draw it again

    def described(self, alt: str, *notes: str) -> Self:
        """The figure with its alt text, and with those notes that say something below both."""
        if note := "; ".join(filter(None, notes)):
            self.supxlabel(textwrap.fill(note, round(14 * self.get_figwidth())), size=9, color=INK)
            alt += f" {sentence(note)}"
        self.alt = minus(alt)
        return self

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        drawn, buffer = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, dpi=140, format="png")
        picture, note = Image.open(drawn), PngInfo()
        note.add_text("Software", picture.info["Software"])  # `verify` asks which matplotlib it was
        # 256 colours, of which a chart has hardly more, in a third of the bytes.
        colours = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colours.save(buffer, "png", optimize=True, pnginfo=note)
        width, height = self.get_size_inches() * 100
        image = base64.b64encode(buffer.getvalue()).decode()
        shape = {"alt": self.alt, "width": round(width), "height": round(height)}
        shown = {"image/png": image, "text/plain": self.alt, MIME: self.call}
        return shown, {"image/png": shape}


def blank(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of that size in inches and its axes, `[rows * columns]`; `options` as `subplots`."""
    figure = blank(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def nothing(words: str, runs: Runs | None = None) -> Figure:
    """A figure that says why there is nothing to draw, and which of the runs were left out."""
    words += f" {sentence(found)}" if runs and (found := left_out(runs)) else ""
    figure = blank(8, 0.8)
    figure.text(0.02, 0.5, textwrap.fill(words, 100), va="center", size=10, color=INK)
    return figure.described(words)


def styled(
    groups: Mapping[str, T], *channels: str, colors: Sequence[Any] = CYCLES["color"]
) -> Iterator[tuple[str, T, dict[str, Any]]]:
    """Each label and group with its colour and, of `CYCLES`, the other `channels`, as keywords.

    They go by the place among the groups: leave runs out afterwards, and figures stay alike.
    """
    cycles = {"color": colors} | {channel: CYCLES[channel] for channel in channels}
    for index, (label, group) in enumerate(groups.items()):
        style = {channel: cycle[index % len(cycle)] for channel, cycle in cycles.items()}
        yield label, group, style


def with_n(label: str, group: Sequence[Run]) -> str:
    """A label and the number of runs behind it: baseline (n = 3)."""
    return f"{label} (n = {len(group)})"


def tidy(axes: Axes, title: str = "", **labels: Any) -> None:
    """Title and labels of an axes, with a light grid and without a frame."""
    axes.set(**labels)
    axes.set_title(title, loc="left", size=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)


def plain_log(axes: Axes) -> None:
    """A log axis upwards with plain numbers on it; call it once everything is drawn."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    steps = (1, 2, 5) if high / low < 200 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_minor_formatter(NullFormatter())


def against_epochs(axes: Axes, title: str, **labels: Any) -> None:
    """Epochs, which are whole numbers, to the right and a log axis upwards."""
    plain_log(axes)
    tidy(axes, title, **labels)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend_beside(axes: Axes, **options: Any) -> None:
    """The legend to the right of the axes, where it hides nothing."""
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), **options)
