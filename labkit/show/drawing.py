"""The diagram of a network, drawn from its own table of layers."""

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import Any, TypeVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from labkit.core import model
from labkit.core.config import Config
from labkit.core.layers import layer_table
from labkit.core.network import POOLED
from labkit.show.figure import COLORS, INK, PAPER, SOFT, Figure, blank

BOX, PLUS, GAP = 0.5, 0.11, 0.22  # half a box, a plus's radius, and from edge to edge
T = TypeVar("T")
LINE, RISE = 1.25, 0.46  # from line to line, and of a shortcut above its block


def draw(config: Config, sizes: Sequence[int]) -> Figure:
    """The config's network for images of these `data.sizes`, read like lines of text: of a
    ResNet two blocks a line, of any other four layers a line, in the order in which an image passes
    them."""
    channels, *pixels, classes = sizes
    network = model.build(config, channels, classes, tuple(pixels))
    rows = layer_table(network, (channels, *pixels))
    rows = rows.set_index(rows["name"].where(~rows["name"].duplicated(), ""))
    resnet = config.model in POOLED
    lines = (_blocks if resnet else _layers)(rows, (channels, *pixels))

    figure = blank(0.95 * len(lines))
    axes = figure.add_subplot()
    axes.set_axis_off()
    for line, (name, texts, shape, of) in enumerate(lines):
        y = -LINE * line
        axes.text(-1.75, y + 0.16, name, va="center", weight="bold")
        axes.text(-1.75, y - 0.2, "×".join(map(str, shape)), va="center", color=SOFT)
        places = [0.0]
        for before, text in pairwise(texts):
            places.append(places[-1] + _half(before) + GAP + _half(text))
            _arrow(axes, (places[-1] - _half(text) - GAP, y), (places[-1] - _half(text), y))
        for place, text in zip(places, texts, strict=True):
            _node(axes, place, y, text)
        for index, block in enumerate(of):
            _shortcut(axes, rows, block, places[3 * index], places[3 * index + 2], y)
        if line + 1 < len(lines):  # on to the next line
            right, left, low = places[-1] + _half(texts[-1]), -BOX - GAP, y - 0.55
            turn = ((right, y), (right + 0.15, y), (right + 0.15, low), (left, low))
            _arrow(axes, *turn, (left, y - LINE), (-BOX, y - LINE))
    axes.set_xlim(-1.8, 6 * GAP + 7 * BOX + 4 * PLUS + 0.2)
    axes.set_ylim(y - 0.4, 0.75)
    if not resnet:
        passed = ", ".join(text.replace("\n", " ") for _, texts, _, _ in lines for text in texts)
        return figure.described(
            f"Diagram of the network: {passed}.",
            "layers with weights, and pooling, in the order in which an image passes them; "
            "branches, normalisations and activations are not drawn; /2 is a stride of 2",
        )
    groups = [name for name, *_, of in lines if of and name]
    down = [name.split(".downsample")[0] for name in rows.index if name.endswith("downsample.0")]
    return figure.described(
        f"Diagram of the network: the stem conv1 and the groups {', '.join(groups)} of residual "
        "blocks with two 3×3 convolutions each, then average pooling and a linear layer. Every "
        f"block has a shortcut; those of {', '.join(down)} pass a 1×1 convolution with stride.",
        "arcs are shortcuts: dashed, the input itself; bold, the input through a 1×1 convolution "
        "that fits it to the new shape; /2 is a stride of 2",
    )


#: What a line of the diagram begins with, its boxes, the shape that leaves it, its blocks.
Line = tuple[str, list[str], tuple[int, ...], list[str]]


def _blocks(rows: pd.DataFrame, image: tuple[int, ...]) -> list[Line]:
    """The lines of a ResNet for an image of that shape."""
    blocks = dict.fromkeys(".".join(n.split(".")[:2]) for n in rows.index if "layer" in n)
    pooled = rows.kind.get("maxpool") == "MaxPool2d"
    stem = [f"image\n{'×'.join(map(str, image))}", _conv(rows, "conv1")] + [
        "max-pool\n3×3, /2"
    ] * pooled
    lines: list[Line] = [("conv1", stem, rows.output_shape["maxpool" if pooled else "conv1"], [])]
    for name, members in groupby(blocks, lambda block: block.split(".")[0]):
        for of in batched(members, 2):
            texts = [(_conv(rows, f"{b}.conv1"), _conv(rows, f"{b}.conv2"), "+") for b in of]
            shape = rows.output_shape[f"{of[-1]}.conv2"]
            lines.append((name, [text for block in texts for text in block], shape, of))
            name = ""  # a group's further lines go on with it
    end = ["average\npool", "linear", f"{rows.output_shape['fc'][0]} classes"]
    return [*lines, ("output", end, rows.output_shape["avgpool"], [])]


def _layers(rows: pd.DataFrame, image: tuple[int, ...]) -> list[Line]:
    """The lines of any other network for an image of that shape."""
    drawn = rows[(rows.multiply_adds > 0) | rows.kind.str.contains("Pool")]
    texts = [("", f"image\n{'×'.join(map(str, image))}", image)]
    for name, row in drawn.iterrows():
        kind = row.kind.removesuffix("2d").replace("Conv", "conv").replace("Linear", "linear")
        kind = kind.replace("AdaptiveAvg", "Avg").replace("Pool", "-pool").lower()[:9]
        stride = f", /{row.stride}" if row.stride not in (0, 1) else ""
        size = f"{row.kernel}" + f"×{row.kernel}" * isinstance(row.kernel, int)
        what = f" {size}" * (row.multiply_adds > 0) if row.kernel else ""
        below = f"{row.output_shape[0]}{stride}" if row.multiply_adds else f"{size}{stride}"
        below = (
            below if row.kernel or row.multiply_adds else "×".join(map(str, row.output_shape[1:]))
        )
        texts.append((name, f"{kind}{what}\n{below}", row.output_shape))
    return [
        (next((name for name, *_ in of if name), ""), [t for _, t, _ in of], of[-1][2], [])
        for of in batched(texts, 4)
    ]


def batched(items: Iterable[T], size: int) -> list[list[T]]:
    """So many of the items at a time; `itertools.batched` is of Python 3.12."""
    left = list(items)
    return [left[start : start + size] for start in range(0, len(left), size)]


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
