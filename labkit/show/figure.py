"""What all figures share: their alt text, their axes, and what tells settings apart."""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Self, TypeVar

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.optimize import isotonic_regression

from labkit.core.words import minus, sentence
from labkit.show.remake import MIME
from labkit.store.groups import Runs, left_out
from labkit.store.run import Run

#: The colours of figures, which a page may define anew as CSS variables of these names: the light
#: ones are drawn, and are what shows where there is no page. `c0` to `c6` tell settings apart, also
#: for the colour-blind; in a grey print markers and line styles do.
_NAMES = ["paper", "ink", "soft", "grid", "holds", "fails", "undecided"]
_NAMES += [f"c{n}" for n in range(7)]
_LIGHT = (
    "#ffffff #222222 #5a6169 #e4e4e4 #00664d #b3261e #6a5300 "
    "#00589c #c25400 #007a5a #b0308a #6f4fc4 #707070 #6b4700"
)
_DARK = (
    "#14181d #e8eaed #a9b1ba #343b44 #5fd0a8 #ff8f85 #e3c35a "
    "#62b0f0 #ff9040 #35c995 #f48ad0 #b3a0ff #a6a6a6 #d8b162"
)
THEMES: dict[str, dict[str, str]] = {
    theme: dict(zip(_NAMES, colors.split(), strict=True))
    for theme, colors in (("light", _LIGHT), ("dark", _DARK))
}
PAPER, INK, SOFT, GRID = list(THEMES["light"].values())[:4]
COLORS = [color for name, color in THEMES["light"].items() if name[0] == "c"]
#: Black is matplotlib's default for ink.
VARIABLES = {"#000000": f"var(--ink, {INK})"} | {
    color: f"var(--{name}, {color})" for name, color in THEMES["light"].items()
}
CYCLES: dict[str, Sequence[Any]] = {
    "color": COLORS,
    "marker": "os^Dv*P",
    "ls": ("-", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1))),
}
DASHED = (0, (4, 2))
#: How the original is drawn everywhere.
THEIRS: dict[str, Any] = {"color": INK, "marker": "D", "mfc": PAPER, "ms": 5, "label": "original"}
SVG = "image/svg+xml"
MOST_VALUES = 200  # of a line that are shown on hover
WIDTH = 6.4  # of a figure in inches: on a telephone its letters are still to be read
LETTERS = 88  # side by side in it
LETTER, MOST_LETTERS = 0.085, 18  # the width of one on an axis, in inches, and of a class at most
MOST_CLASSES = 20  # that a figure has room for
T = TypeVar("T")


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure with alt text, for readers who cannot see it, that shows as SVG."""

    alt: str = ""
    call: Mapping[str, Any] = {}  # how to draw it again

    def described(self, alt: str, *notes: str) -> Self:
        """The figure with its alt text, and with those notes that say something below both."""
        if note := "; ".join(filter(None, notes)):
            lines = textwrap.fill(note, round(15.5 * self.get_figwidth()))
            self.supxlabel(lines, x=0.01, ha="left", size=9, color=SOFT)
            alt += f" {sentence(note)}"
        self.alt = minus(alt)
        return self

    def svg(self) -> str:
        """The figure as an SVG element that can stand on a page beside others: the same bytes from
        the same data, with texts as text and the colours of `THEMES` as CSS variables."""
        drawn = io.StringIO()
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "labkit"}):
            self.savefig(drawn, format="svg", metadata=none)
        body = drawn.getvalue().partition("</defs>")[2]  # what is before says how lines join
        used = set(re.findall(r"#([\w-]+)[\")]", body))
        body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
        body = re.sub(r"<[^>]+>", lambda tag: _terse(tag[0]), re.sub(r"<!--.*?-->", "", body))
        role = "group" if "<a " in body else "img"  # links in an img nobody would find
        width, height = self.get_size_inches()
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" data-matplotlib="{mpl.__version__}" '
            f'role="{role}" aria-label="{escape(self.alt)}" width="{width * 100:.0f}" '
            f'height="{height * 100:.0f}" viewBox="0 0 {width * 72:g} {height * 72:g}" '
            f'font-family="system-ui, sans-serif" style="fill: {VARIABLES[INK]}; '
            f'stroke-linejoin: round">'
            + re.sub(r">\n *<", "><", body).strip().removesuffix("</svg>")
            + f'<g fill="none" pointer-events="all">{self._values()}</g></svg>'
        )

    def _values(self) -> str:
        """Around each point of each line a ring that is not seen, with the point's values as its
        title: browsers show it under the mouse, and the page's script to the keyboard."""
        rings, size = [], self.get_size_inches() * 72
        shown = [axes for axes in self.axes if axes.axison and axes.get_visible()]
        usual = [
            next(filter(None, names), "")
            for names in ([a.get_xlabel() for a in shown], [a.get_ylabel() for a in shown])
        ]
        usual[1] = usual[1] or self.get_supylabel()
        for axes in shown:
            xlabel, ylabel = axes.get_xlabel() or usual[0], axes.get_ylabel() or usual[1]
            what, unit = re.split(r" \(|[,:] ", xlabel)[0], ylabel.rpartition(" (")[2].rstrip(")")
            named = [line for line in axes.lines if not line.get_label().startswith("_")]
            labels = {line.get_color(): line.get_label() for line in named}
            box = axes.bbox.padded(2)
            for line in axes.lines:
                points = np.asarray(line.get_xydata(), float)[:MOST_VALUES]
                if line.get_transform() != axes.transData or line.get_alpha() == 0:
                    continue
                label = line.get_label() if line in named else labels.get(line.get_color(), "")
                head = ", ".join(filter(None, [axes.get_title("left") * (len(shown) > 1), label]))
                for point, place in zip(points, axes.transData.transform(points), strict=True):
                    if np.isfinite(place).all() and box.contains(*place):
                        at = place / self.bbox.size * size
                        across, up = (
                            _on_axis(axes.xaxis, point[0]),
                            _on_axis(axes.yaxis, point[1]),
                        )
                        title = escape(f"{head}, {what} {across}: {up} {unit}".strip(", "))
                        circle = f'cx="{at[0]:.1f}" cy="{size[1] - at[1]:.1f}" r="5"'
                        rings.append(f"<circle {circle}><title>{title}</title></circle>")
        return "".join(rings)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        width, height = (round(side) for side in self.get_size_inches() * 100)
        shown = {SVG: self.svg(), "text/plain": self.alt, MIME: self.call}
        return shown, {SVG: {"alt": self.alt, "width": width, "height": height}}


def _terse(tag: str) -> str:
    """A tag of matplotlib's SVG in fewer bytes: two decimals, no list of fonts; with variables."""
    tag = re.sub(r"\s+", " ", tag).replace("xlink:href", "href").replace(' target="_blank"', "")
    tag = re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), tag)
    tag = re.sub(r"font-family: [^;\"]+;? ?| transform=\"rotate\(-0 [^\"]+\"", "", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda color: VARIABLES.get(color[0], color[0]), tag)


def blank(height: float) -> Figure:
    """An empty figure of that height in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)


def panels(
    height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of that height in inches and its axes, `[rows * columns]`; `options` as subplots."""
    figure = blank(height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def multiples(count: int, height: float, xlabel: str, ylabel: str) -> tuple[Figure, np.ndarray]:
    """A figure of so many small panels, `height` inches each and at most three in a row, which
    share their axes, and these; labels stand where a reader begins."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, parts = panels(0.7 + height * rows, rows, columns, sharex=True, sharey=True)
    figure.get_layout_engine().set(wspace=0.08)  # numbers at the ends of axes stay apart
    for place, axes in enumerate(parts):
        axes.set(xlabel=xlabel * (place + columns >= count), visible=place < count)
        axes.xaxis.set_tick_params(labelbottom=place + columns >= count)
        axes.set_ylabel(ylabel * (place % columns == 0))
    return figure, parts[:count]


def nothing(words: str, runs: Runs | None = None) -> Figure:
    """A figure that says why there is nothing to draw, and which of the runs were left out."""
    words += f" {sentence(found)}" if runs and (found := left_out(runs)) else ""
    lines = textwrap.wrap(words, 75)
    figure = blank(0.4 + 0.2 * len(lines))
    figure.text(0.02, 0.5, "\n".join(lines), va="center")
    return figure.described(words)


def styled(groups: Mapping[str, T], *channels: str) -> Iterator[tuple[str, T, dict[str, Any]]]:
    """Each label and group with its colour and, of `CYCLES`, the other `channels`, as keywords, by
    the place among the groups: leave runs out afterwards, and figures stay alike."""
    for index, (label, group) in enumerate(groups.items()):
        cycles = {channel: CYCLES[channel] for channel in ("color", *channels)}
        yield label, group, {name: cycle[index % len(cycle)] for name, cycle in cycles.items()}


def with_n(label: str, group: Sequence[Run]) -> str:
    """A label and the number of runs behind it: baseline (n = 3)."""
    return f"{label} (n = {len(group)})"


def tidy(axes: Axes, title: str = "", **labels: Any) -> None:
    """Title and labels of an axes, with a light grid and without a frame."""
    axes.set(**labels)
    width = 72 // axes.get_subplotspec().get_gridspec().ncols
    if len(title) > width:
        title = textwrap.fill(title.replace(" = ", "\u00a0=\u00a0"), width)
    axes.set_title(title, loc="left", size=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def named(name: str) -> str:
    """What a class is called on an axis."""
    return name if len(name) <= MOST_LETTERS else f"{name[:9]}…{name[-8:]}"


def upright(names: Sequence[str]) -> float:
    """How many inches names below each other's ends take upright; 0 where they have room side by
    side along the figure's width."""
    longest = LETTER * max(map(len, names))
    return longest if longest * len(names) > WIDTH else 0.0


def plain(value: float, _: object = None) -> str:
    """A number on an axis: 10,000, and 0.05, not 5 × 10⁻²."""
    digits = np.format_float_positional(float(f"{value:.6g}"), trim="-")
    return minus(f"{value:,.0f}" if abs(value) >= 1000 else digits)


def plain_log(axes: Axes, which: str = "y") -> None:
    """Log axes (y, x or xy) with plain numbers on them; call it once everything is drawn."""
    for name in which:
        axes.set(**{f"{name}scale": "log"})
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_view_interval()
        steps = range(1, 10) if high / low < 5 else (1, 2, 5) if high / low < 200 else (1,)
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())


def _on_axis(axis: Axis, value: float) -> str:
    """A value as its axis would label it; of an axis with words, the nearest of them."""
    formatter = axis.get_major_formatter()
    if isinstance(formatter, FuncFormatter) and formatter.func is not plain:
        places = axis.get_majorticklocs()
        return formatter(places[np.abs(places - value).argmin()])
    return plain(float(f"{value:.3g}") if abs(value) < 1000 else value)


def against_epochs(axes: Axes, title: str, **labels: Any) -> None:
    """Epochs, which are whole numbers, to the right and a log axis upwards."""
    plain_log(axes)
    tidy(axes, title, **labels)
    columns = axes.get_subplotspec().get_gridspec().ncols
    axes.xaxis.set_major_locator(MaxNLocator(9 // columns + 1, integer=True))
    if np.ptp(axes.get_xlim()) <= 1:  # there is one epoch
        axes.set(xlim=(-0.5, 0.5), xticks=[0])


def legend_above(figure: Figure, **options: Any) -> None:
    """A legend above all axes, where it hides nothing, of what their lines are called."""
    named = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    found = {label: handle for pairs in named for handle, label in pairs}
    found = dict(sorted(found.items(), key=lambda item: item[0] == THEIRS["label"]))  # ours first
    wide = [len(label) + 6 for label in found]  # in letters, with the line before it
    columns = len(found) if sum(wide) < LETTERS else max(LETTERS // max(wide), 1)
    options = {"loc": "outside upper left", "frameon": False, "ncols": columns} | options
    figure.legend(found.values(), found, borderpad=0, columnspacing=1.2, **options)


def spread(wanted: Sequence[float], gap: float) -> np.ndarray:
    """The places nearest to those wanted, by least squares, of which no two are nearer than
    `gap`."""
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(order))
    places = np.empty(len(order))
    places[order] = isotonic_regression(np.asarray(wanted)[order] - steps).x + steps
    return places


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Labels to the right of where lines end, at x, y and in a colour; call it last of all."""
    if not ends:
        return
    axes.get_figure().draw_without_rendering()  # only then it is known how tall the axes is
    box, dpi = axes.get_window_extent(), axes.get_figure().dpi
    to_axes = axes.transData + axes.transAxes.inverted()
    places = np.array([to_axes.transform((x, y)) for x, y, _ in ends.values()])
    beside = spread(places[:, 1], 12 * dpi / 72 / box.height)
    for (label, (_, _, color)), (x, y), to in zip(ends.items(), places, beside, strict=True):
        line = {"color": color, "lw": 0.7, "clip_on": False, "transform": axes.transAxes}
        axes.plot([x, 1.02], [y, to], **line)
        at = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
        axes.annotate(label, (1.02, to), (3, 0), color=color, **at)
