"""The diagram of a network, drawn from its own table of layers."""

from itertools import groupby
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from labkit.core import model
from labkit.core.config import Config
from labkit.core.layers import layer_table
from labkit.show.figure import CYCLES, INK, Figure, blank

BOX, PLUS, PITCH = 0.68, 0.11, 1.75  # half a box, a plus's radius, and from centre to centre
RISE = 0.42  # of a shortcut above its block


def draw(config: Config) -> Figure:
    """The config's network, a line per group of blocks, read like lines of text."""
    rows = layer_table(model.build(config)).set_index("name")
    blocks = dict.fromkeys(".".join(n.split(".")[:2]) for n in rows.index if "layer" in n)
    groups = {name: list(of) for name, of in groupby(blocks, lambda block: block.split(".")[0])}
    pooled = rows.kind.get("maxpool") == "MaxPool2d"
    stem = ["image\n1×28×28", _conv(rows, "conv1")] + ["max-pool\n3×3, stride 2"] * pooled
    end = ["average pool", "linear", f"{rows.output_shape['fc'][0]} classes"]
    lines = {"conv1": (stem, "maxpool" if pooled else "conv1")}  # texts, and what gives the shape
    for name, of in groups.items():
        texts = [t for b in of for t in (_conv(rows, f"{b}.conv1"), _conv(rows, f"{b}.conv2"), "+")]
        lines[name] = texts, f"{of[-1]}.conv2"
    lines["output"] = end, "avgpool"

    figure = blank(10, 0.95 * len(lines))
    axes = figure.add_subplot()
    axes.set_axis_off()
    fills = sns.light_palette(CYCLES["color"][0], 2 * len(lines))  # light enough for dark text
    for line, (name, (texts, last)) in enumerate(lines.items()):
        y = -1.25 * line
        axes.text(-1.9, y + 0.14, name, va="center", weight="bold", size=10)
        shape = "×".join(map(str, rows.output_shape[last]))
        axes.text(-1.9, y - 0.18, shape, va="center", size=8.5, color=INK)
        for place, text in enumerate(texts):
            _node(axes, place * PITCH, y, text, fills[line + 1])
            if place:
                before = (place - 1) * PITCH + _half(texts[place - 1])
                _arrow(axes, (before, y), (place * PITCH - _half(text), y))
        for index, block in enumerate(groups.get(name, ())):
            _shortcut(axes, rows, block, 3 * index * PITCH, y)
        if name != "output":  # on to the next line
            right, left = (len(texts) - 1) * PITCH + _half(texts[-1]), -PITCH / 2 - 0.1
            turn = ((right, y), (right + 0.2, y), (right + 0.2, y - 0.56), (left, y - 0.56))
            _arrow(axes, *turn, (left, y - 1.25), (-BOX, y - 1.25))
    axes.set_xlim(-1.95, 5.4 * PITCH)
    axes.set_ylim(y - 0.4, 0.75)
    axes.set_title(
        "Arcs are shortcuts. Dashed: the input itself. Bold: the input through a 1×1 convolution "
        "that fits it to the new shape",
        size=10,
        loc="left",
    )
    down = [name.split(".downsample")[0] for name in rows.index if name.endswith("downsample.0")]
    return figure.described(
        f"Diagram of the network: the stem conv1 and the groups {', '.join(groups)} of residual "
        "blocks with two 3×3 convolutions each, then average pooling and a linear layer. Every "
        f"block has a shortcut; those of {', '.join(down)} pass a 1×1 convolution with stride."
    )


def _conv(rows: pd.DataFrame, name: str) -> str:
    row = rows.loc[name]
    stride = f"\nstride {row.stride}" if row.stride > 1 else ""
    return f"conv {row.kernel}×{row.kernel}, {row.output_shape[0]}{stride}"


def _half(text: str) -> float:
    return PLUS if text == "+" else BOX


def _node(axes: Axes, x: float, y: float, text: str, fill: Any) -> None:
    """A box or, for an addition, a circle, with its text."""
    half, tall = _half(text), PLUS if text == "+" else 0.25
    style = "circle,pad=0" if text == "+" else "round,pad=0,rounding_size=0.08"
    shape = FancyBboxPatch((x - half, y - tall), 2 * half, 2 * tall, boxstyle=style)
    axes.add_patch(shape)
    shape.set(fc="white" if text == "+" else fill, ec=INK, lw=0.8)
    axes.text(x, y, text, ha="center", va="center", size=8, color=INK)


def _arrow(axes: Axes, *points: tuple[float, float], **style: Any) -> None:
    """A line through the points, its end an arrow."""
    style = {"color": INK, "lw": 1} | style
    axes.plot(*zip(*points[:-1], strict=True), **style)
    head = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9} | style
    axes.annotate("", points[-1], points[-2], arrowprops=head)


def _shortcut(axes: Axes, rows: pd.DataFrame, block: str, x: float, y: float) -> None:
    """The arc from before a block, whose first box is at x, to its addition."""
    start, end, top = x - BOX - 0.2, x + 2 * PITCH, y + RISE
    projection = f"{block}.downsample.0"
    projected = projection in rows.index
    style: dict[str, Any] = {"lw": 1.8} if projected else {"ls": "--"}
    _arrow(axes, (start, y), (start, top), (end, top), (end, y + PLUS), **style)
    if projected:
        text, box = f"1×1\n/{rows.stride[projection]}", {"fc": "white", "ec": INK, "pad": 1.8}
        axes.text(x + PITCH / 2, top, text, size=7.5, ha="center", va="center", bbox=box)
