"""A short report whose page or manifest is altered at random places, of which each is noticed."""

import copy
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
from bs4 import BeautifulSoup, Tag

from labkit import plots
from labkit.report import build, verify
from labkit.show import remake
from labkit.store.files import file_sha256

#: Four runs of one epoch, as `labkit report` trained them with `LABKIT_SMOKE=1` and `-p lr 0.1`:
#: baseline, sigmoid, tanh and learning rate 0.1. Where they fit no longer, they are trained.
RECORDS = Path(__file__).parent.parent / "records"

#: A report of one short notebook, with two of these runs and something of every kind.
CELLS = [
    "# 3.1 Learning rate\n\n## Question\n\nWhat of images which training never sees?",
    "dataset, epochs = 'mnist-5k', 1",
    "from labkit import Config, conclusions, plots, run_all, tables, vary\n"
    "runs = run_all(vary(Config(epochs=epochs), lr=[0.01, 0.1]))",
    "## Results\n\n### Loss",
    "tables.epochs(runs)",
    "plots.loss_by_epoch(runs)",
    "### Accuracy",
    "tables.per_class(runs)",
    "plots.accuracy_by_class(runs)",
    "## Conclusion",
    "conclusions.loss(runs)",
]

#: What a notebook says of its language.
PYTHON = {
    "language_info": {"name": "python"},
    "kernelspec": {"name": "python3", "display_name": "Python", "language": "python"},
}


def short_report(folder: Path, cells: Sequence[str] = CELLS, dataset: str = "mnist-5k") -> Path:
    """Write a report of one notebook of these cells, which lies beside it; the page."""
    folder.mkdir(parents=True, exist_ok=True)
    made = nbformat.v4.new_notebook(metadata=PYTHON)
    for text in cells:
        new = nbformat.v4.new_markdown_cell if text[0] == "#" else nbformat.v4.new_code_cell
        made.cells.append(new(text))
    made.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(made, folder / "03_lr.ipynb")
    plans = {"03_lr": {"dataset": dataset, "epochs": 1}}
    with (
        mock.patch.dict(os.environ, {"LABKIT_RUNS": f"{folder / 'runs'}{os.pathsep}{RECORDS}"}),
        mock.patch.object(build, "notebook_folder", lambda: folder),
        mock.patch.object(build, "plan", lambda *_: plans),
    ):
        return build.write_report(folder / "out")


def making_once(again: Callable[[Any, Any], Any] = verify.again) -> Callable[[Any, Any], Any]:
    """`verify.again` that keeps what it has made, and asks for the records behind it every time."""
    remade: dict[str, Any] = {}

    def once(made: Any, find: Callable[[Any], Any]) -> Any:
        for given in made["from"].values() if "from" in made else ():
            remake.decode(given, find)
        key = json.dumps(made)
        if key not in remade:
            remade[key] = again(made, find)
            bundle = remade[key]._repr_mimebundle_()
            if isinstance(remade[key], plots.Figure):
                remade[key]._repr_mimebundle_ = lambda: copy.deepcopy(bundle)
        return remade[key]

    return once


def alter_page(text: str, chance: random.Random) -> tuple[str, str]:
    """A page with something altered that a reader would see; the way."""
    body = text.index("<body>")
    soup = BeautifulSoup(text, "html.parser")
    way = chance.choice(["letter", "element gone", "style", "attribute", "swap", "added"])
    if way == "letter":
        places = [m.span(1) for m in re.finditer(r">([^<]*\w[^<]*)<", text) if m.start() > body]
        logs = [m.span() for m in re.finditer(r'<details class="log">.*?</details>', text, re.S)]
        places = [p for p in places if not any(a <= p[0] < b for a, b in logs)]
        start, end = chance.choice(places)
        place = chance.choice([i for i in range(start, end) if text[i].isalnum()])
        return text[:place] + ("7" if text[place] != "7" else "4") + text[place + 1 :], way
    if way == "style":
        rule = chance.choice(["tr:nth-child(2)", ".banner", "img", "h3 + p"])
        return text.replace("</style>", f"{rule}{{display:none}}</style>"), way
    shown = [t for t in soup.body.find_all(True) if not t.find_parent(class_="log")]
    shown = [t for t in shown if t.name in ("p", "li", "tr", "td", "img", "h3", "table", "section")]
    one = chance.choice(shown)
    if way == "element gone":
        one.decompose()
    elif way == "attribute":
        one[chance.choice(["hidden", "style", "title"])] = "display:none"
    elif way == "added":
        one.insert_after(BeautifulSoup("<p>It is certain.</p>", "html.parser"))
    else:
        alike = [t for t in shown if t.name == one.name and str(t) != str(one)]
        alike = [t for t in alike if t not in one.descendants and one not in t.descendants]
        if not alike:
            return alter_page(text, chance)
        other, here = chance.choice(alike), Tag(name="u")
        one.replace_with(here)
        other.replace_with(one)
        here.replace_with(other)
    return text[: text.index("<body>")] + str(soup.body) + "\n</html>", way


def alter_manifest(manifest: dict[str, Any], chance: random.Random) -> str:
    """Alter, remove or add something in a manifest; where."""
    place, here = "", manifest
    while True:
        key = chance.choice(sorted(here)) if isinstance(here, dict) else chance.randrange(len(here))
        place += f"/{key}"
        deeper = isinstance(here[key], dict | list) and len(here[key])
        if deeper and chance.random() < 0.85:
            here = here[key]
            continue
        if chance.random() < 0.3 and isinstance(here, dict):
            del here[key]
        elif isinstance(here[key], str):
            here[key] += "0"
        else:
            here[key] = 7 if here[key] != 7 else 4
        return place


def alter(folder: Path, times: int, chance: random.Random) -> Counter[str]:
    """Alter a page or its manifest, which is made to fit or is gone; each must be noticed."""
    page = short_report(folder)
    evidence = build.evidence(page)
    good = {path: path.read_text("utf-8") for path in (page, evidence / build.MANIFEST)}
    counts: Counter[str] = Counter()
    with (
        mock.patch.dict(os.environ, {"LABKIT_RUNS": str(folder / "runs")}),
        mock.patch.object(build, "notebook_folder", lambda: folder),
        mock.patch.object(verify, "again", making_once()),
    ):
        assert verify.verify(page).problems == []
        for _ in range(times):
            text, manifest = good[page], json.loads(good[evidence / build.MANIFEST])
            if chance.random() < 0.3:
                what = f"manifest{alter_manifest(manifest, chance)}"
                page.write_text(text, "utf-8")
                (evidence / build.MANIFEST).write_text(json.dumps(manifest))
                way = "manifest"
            else:
                text, way = alter_page(text, chance)
                page.write_text(text, "utf-8")
                manifest["files"][build.PAGE] = file_sha256(page)
                (evidence / build.MANIFEST).write_text(json.dumps(manifest))
                what = f"page, {way}"
                if chance.random() < 0.5:
                    (evidence / build.MANIFEST).unlink()
                    what += ", no manifest"
            if verify.verify(page).problems:
                counts[f"noticed: {way}"] += 1
            else:
                counts[f"NOT NOTICED: {what}"] += 1
                shutil.copy2(page, folder / f"unnoticed{counts.total()}.html")
    assert not any("NOT" in way for way in counts), counts
    return counts
