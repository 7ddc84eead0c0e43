"""The images behind the mistakes, in groups that the cells of a confusion heatmap lead to."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from labkit.core.config import DATASETS, GREY, SHAPES
from labkit.core.words import plural
from labkit.show.remake import MIME, remakable
from labkit.store.groups import answered, left_out
from labkit.store.run import Run

LARGEST = 64  # pixels of a side of an image


@dataclass
class Gallery:
    """Small images with the words that describe them; shows itself in a notebook."""

    html: str
    words: str
    call: Mapping[str, Any] = field(default_factory=dict)  # how to make it again

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": self.words, MIME: self.call}

    def __repr__(self) -> str:
        return self.words


def anchor(true: int, answer: int) -> str:
    """The name of the place on a page where the images of one kind of mistake are."""
    return f"mistakes-{true}-{answer}"


@remakable
def mistakes(group: Sequence[Run], images: np.ndarray | None) -> Gallery:
    """Every test image that a run of one setting got wrong, recalibrated, by its class and by what
    it was taken for; on a page a click on a cell of `plots.confusion` shows one such group alone.

    `images` are the test images of the runs' dataset in their order, uint8 `[n, C, H, W]`; None
    where they are not at hand, which leaves the words. Other than as many as a run has answers are
    a ValueError.
    """
    runs = answered({"": group}).get("", [])
    for run in runs if images is not None else ():
        if len(images) != len(run.test_labels):
            raise ValueError(f"{len(images)} images for {len(run.test_labels)} answers")
    times: dict[tuple[int, int], dict[int, int]] = {}  # class, answer → image → in so many runs
    for run in runs:
        for i in map(int, np.flatnonzero(~run.right())):
            pair = int(run.test_labels[i]), int(run.predicted()[i])
            found = times.setdefault(pair, {})
            found[i] = found.get(i, 0) + 1
    names, dataset, size = group[0].classes, group[0].config.dataset, ""
    if dataset in DATASETS:  # how large own images are no record says
        size = ' width="{2}" height="{1}"'.format(*SHAPES.get(dataset, GREY))
    wrong = [count for found in times.values() for count in found.values()]
    head = f"{sum(wrong):,} mistakes on test images, {len(wrong):,} different ones, each shown once"
    head += f"; n = {len(runs)}, recalibrated"
    head = "; ".join(filter(None, (head, left_out({"": group}))))
    parts, said = [], []
    for (true, answer), found in sorted(times.items(), key=lambda item: -len(item[1])):
        name = f"{names[true]} taken for {names[answer]}"
        cells = []
        for i, count in sorted(found.items(), key=lambda item: (-item[1], item[0])):
            words = f"{name} in {plural(count, 'run')}: image {i}"
            source = "" if images is None else picture(images[i], dataset in DATASETS)
            cells.append(f'<img src="{source}"{size} alt="{words}" title="{words}">')
        shown = f"{name} ({plural(len(found), 'image')})"
        said.append(shown)
        parts.append(f'<div id="{anchor(true, answer)}">{shown}<br>\n{"".join(cells)}</div>')
    link = '<a href="#mistakes">show all</a>'
    html = f'<div class="gallery" id="mistakes">\n<p>{escape(head)}; {link}</p>\n'
    return Gallery(html + "\n".join(parts) + "\n</div>", f"{head}: {'; '.join(said)}.")


def picture(image: np.ndarray, ink: bool) -> str:
    """An image, uint8 `[C, H, W]`, as the address of a PNG; with `ink` a grey one dark on light, as
    on paper. Of two channels only the first is shown, of more than three only three."""
    colour, buffer = len(image) > 2, io.BytesIO()
    pixels = image[:3].transpose(1, 2, 0) if colour else image[0]
    shown = Image.fromarray(np.ascontiguousarray(255 - pixels if ink and not colour else pixels))
    shown.thumbnail((LARGEST, LARGEST), reducing_gap=None)
    shown.save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
