"""The diagram of a network, drawn from its own table of layers."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from labkit.core import model
from labkit.core.config import Config
from labkit.core.layers import layer_table
from labkit.show.figure import COLORS, INK, PAPER, SOFT, Figure, blank

BOX, PLUS, GAP = 0.5, 0.11, 0.22  # half a box, a plus's radius, and from edge to edge
LINE, RISE = 1.25, 0.46  # from line to line, and of a shortcut above its block


def draw(config: Config, sizes: Sequence[int]) -> Figure:
    """The config's network for images of these `data.sizes`, a line per group of blocks, read like
    lines of text."""
    *shape, classes = sizes
    rows = layer_table(model.build(config, shape[0], classes), shape).set_index("name")
    blocks = dict.fromkeys(".".join(n.split(".")[:2]) for n in rows.index if "layer" in n)
    groups = {name: list(of) for name, of in groupby(blocks, lambda block: block.split(".")[0])}
    pooled = rows.kind.get("maxpool") == "MaxPool2d"
    stem = [f"image\n{'×'.join(map(str, shape))}", _conv(rows, "conv1")]
    stem += ["max-pool\n3×3, /2"] * pooled
    end = ["average\npool", "linear", f"{rows.output_shape['fc'][0]} classes"]
    lines = {"conv1": (stem, "maxpool" if pooled else "conv1")}  # texts, and what gives the shape
    for name, of in groups.items():
        texts = [t for b in of for t in (_conv(rows, f"{b}.conv1"), _conv(rows, f"{b}.conv2"), "+")]
        lines[name] = texts, f"{of[-1]}.conv2"
    lines["output"] = end, "avgpool"

    figure = blank(0.95 * len(lines))
    axes = figure.add_subplot()
    axes.set_axis_off()
    for line, (name, (texts, last)) in enumerate(lines.items()):
        y = -LINE * line
        axes.text(-1.75, y + 0.16, name, va="center", weight="bold")
        shape = "×".join(map(str, rows.output_shape[last]))
        axes.text(-1.75, y - 0.2, shape, va="center", color=SOFT)
        places = [0.0]
        for before, text in pairwise(texts):
            places.append(places[-1] + _half(before) + GAP + _half(text))
            _arrow(axes, (places[-1] - _half(text) - GAP, y), (places[-1] - _half(text), y))
        for place, text in zip(places, texts, strict=True):
            _node(axes, place, y, text)
        for index, block in enumerate(groups.get(name, ())):
            _shortcut(axes, rows, block, places[3 * index], places[3 * index + 2], y)
        if name != "output":  # on to the next line
            right, left, low = places[-1] + _half(texts[-1]), -BOX - GAP, y - 0.55
            turn = ((right, y), (right + 0.15, y), (right + 0.15, low), (left, low))
            _arrow(axes, *turn, (left, y - LINE), (-BOX, y - LINE))
    axes.set_xlim(-1.8, 6 * GAP + 7 * BOX + 4 * PLUS + 0.2)
    axes.set_ylim(y - 0.4, 0.75)
    down = [name.split(".downsample")[0] for name in rows.index if name.endswith("downsample.0")]
    return figure.described(
        f"Diagram of the network: the stem conv1 and the groups {', '.join(groups)} of residual "
        "blocks with two 3×3 convolutions each, then average pooling and a linear layer. Every "
        f"block has a shortcut; those of {', '.join(down)} pass a 1×1 convolution with stride.",
        "arcs are shortcuts: dashed, the input itself; bold, the input through a 1×1 convolution "
        "that fits it to the new shape; /2 is a stride of 2",
    )


def _conv(rows: pd.DataFrame, name: str) -> str:
    row = rows.loc[name]
    stride = f", /{row.stride}" if row.stride > 1 else ""
    return f"conv {row.kernel}×{row.kernel}\n{row.output_shape[0]}{stride}"


def _half(text: str) -> float:
    return PLUS if text == "+" else BOX


def _node(axes: Axes, x: float, y: float, text: str) -> None:
    """A box or, for an addition, a circle, with its text."""
    half, tall = _half(text), PLUS if text == "+" else 0.28
    style = "circle,pad=0" if text == "+" else "round,pad=0,rounding_size=0.08"
    shape = FancyBboxPatch((x - half, y - tall), 2 * half, 2 * tall, boxstyle=style)
    axes.add_patch(shape)
    shape.set(fc=PAPER if text == "+" else (COLORS[0], 0.12), ec=INK, lw=0.8)
    for line, words in enumerate(lines := text.split("\n")):  # centred in whatever font
        at = y + 0.2 * (len(lines) - 1) / 2 - 0.22 * line
        axes.text(x, at, words, ha="center", va="center", size=9.5)


def _arrow(axes: Axes, *points: tuple[float, float], **style: Any) -> None:
    """A line through the points, its end an arrow."""
    style = {"color": INK, "lw": 1} | style
    axes.plot(*zip(*points[:-1], strict=True), **style)
    head = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9} | style
    axes.annotate("", points[-1], points[-2], arrowprops=head)


def _shortcut(
    axes: Axes, rows: pd.DataFrame, block: str, first: float, plus: float, y: float
) -> None:
    """The arc from before a block, whose first box is at `first`, to its addition at `plus`."""
    start, top = first - BOX - GAP / 2, y + RISE
    projection = f"{block}.downsample.0"
    projected = projection in rows.index
    style: dict[str, Any] = {"lw": 1.8} if projected else {"ls": "--"}
    _arrow(axes, (start, y), (start, top), (plus, top), (plus, y + PLUS), **style)
    if projected:
        text, box = f"1×1, /{rows.stride[projection]}", {"fc": PAPER, "ec": INK, "pad": 1.8}
        axes.text((start + plus) / 2, top, text, size=9, ha="center", va="center", bbox=box)
