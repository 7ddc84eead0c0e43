"""A lab of one's own: laid out, reported and verified, by the words of the README."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import scipy.stats
import torch
from alterations import PYTHON, RECORDS
from bs4 import BeautifulSoup
from helpers import made_up_run

import labkit
from labkit import Claim, ConfigError, conclusions, plots, read_claims, tables
from labkit.core import config
from labkit.core.train import make_optimizer
from labkit.core.values import LabkitError
from labkit.judge import claims, original
from labkit.judge.claims import FAILS, HOLDS
from labkit.judge.own import verdicts_on
from labkit.report import build
from labkit.report.verify import verify
from labkit.show.remake import decode

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "README.md").read_text().split("## Your own question\n")[1].split("\n## ")[0]
#: Prose, and what follows it: a block of TOML or Python, or commands.
STEP = re.compile(r"(.*?)(?:```\w+\n(.*?)```|((?:^ {4}[^\n]*\n)+))", re.M | re.S)
FILE = re.compile(r"`((?:optimizers|labkit)/[\w/]+\.\w+)`")


def edit(path: Path, block: str) -> None:
    """Put a block of the README where its prose says."""
    if path.suffix == ".toml":
        path.write_text(block)
    elif path.suffix == ".ipynb":  # in the place of the cell that begins so, or at the end
        notebook = nbformat.read(path, as_version=4)
        begin = re.match(r"settings =|conclusions.claim|", block)[0] or block
        cells = [cell for cell in notebook.cells if cell.source.startswith(begin)]
        cells = cells or [nbformat.v4.new_code_cell()]
        cells[0].source = block.strip()
        notebook.cells += [cell for cell in cells if cell not in notebook.cells]
        nbformat.write(notebook, path)
    else:  # the last field of `Config`, and the last line of `batch_loss`
        places = {"config": r"(?=\n    def __new__)", "train": r"    return F.cross_.*\n"}
        text, times = re.subn(places[path.stem], lambda _: block, path.read_text())
        assert times == 1
        path.write_text(text)


def test_the_words_of_the_readme_make_a_lab_and_add_a_setting(tmp_path):
    """In a copy of labkit, and every run with one epoch."""
    shutil.copytree(Path(labkit.__file__).parent, tmp_path / "labkit")
    runs = {"LABKIT_RUNS": str(tmp_path / "runs"), "LABKIT_DATA": str(tmp_path / "none")}
    environment = os.environ | runs | {"LABKIT_SMOKE": "1", "PYTHONPATH": str(tmp_path)}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}

    def done(commands: list[str]) -> None:
        for command in commands:
            _, *words = shlex.split(command)
            ended = subprocess.run([sys.executable, "-m", "labkit", *words], **options)
            assert ended.returncode == 0, (command, ended.stdout, ended.stderr)

    def shown(claim: str, *settings: str) -> None:
        """What is on the page."""
        page = tmp_path / "report" / build.PAGE
        soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
        assert [row.th.get_text() for row in soup.table.tbody.find_all("tr")] == list(settings)
        (chip,) = soup.find_all(class_="chip")
        assert chip["href"] == f"#claim-{claim}" and "undecided" in chip["class"]
        assert "(n = 1)" in soup.find(id=f"claim-{claim}").get_text()
        assert len(soup.find_all("figure")) == 3
        assert "riginal" not in soup.get_text()

    place = ""
    for prose, block, lines in STEP.findall(SECTION):
        place = (FILE.findall(prose) or [place])[0]
        if block:
            edit(tmp_path / place, block)
        else:
            done(commands := lines.strip().splitlines())
    shown("momentum", "baseline", "baseline, SGD, momentum 0.9")
    done(commands)  # "report and verify as before"
    shown("smoothing", "baseline", "baseline, label smoothing 0.1")


def test_a_new_lab_needs_a_folder_of_its_own(tmp_path, command, capsys):
    (tmp_path / "mine.txt").write_text("")
    assert command("new", tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_notebooks_are_found_by_folder_and_by_name(tmp_path):
    for name in ("b.ipynb", "a.ipynb", "notes.txt"):
        (tmp_path / name).write_text("{}")
    assert list(build.find_notebooks([tmp_path])) == ["a", "b"]
    assert list(build.find_notebooks([tmp_path / "b.ipynb", tmp_path / "a.ipynb"])) == ["b", "a"]
    (tmp_path / "my lab.ipynb").write_text("{}")
    for places, said in (
        ([tmp_path / "c.ipynb"], "there is no notebook at"),
        ([tmp_path / "notes.txt"], "there is no notebook at"),
        ([tmp_path / "a.ipynb", tmp_path / "a.ipynb"], "two notebooks are called a"),
        ([tmp_path], "'my lab.ipynb' needs a name"),
    ):
        with pytest.raises(LabkitError, match=said):
            build.find_notebooks(places)


def seeds(*courses, **settings):
    """A run for each course of losses, with the seeds 0, 1, ..."""
    return [made_up_run(losses=c, seed=seed, **settings) for seed, c in enumerate(courses)]


RUNS = {
    "a": seeds((0.9, 0.30), (1.1, 0.28), (1.0, 0.33)),
    "m": seeds((0.7, 0.17), (0.8, 0.15), (0.7, 0.20), optimizer="momentum"),
}
CLAIM = {"name": "m", "says": "So.", "first": {"optimizer": "momentum"}, "expects": "less"}


def test_a_claim_of_ones_own_is_judged_by_welchs_test():
    logs = [[np.log(r.history["loss"]).mean() for r in RUNS[key]] for key in ("m", "a")]
    p = scipy.stats.ttest_ind(*logs, equal_var=False).pvalue
    reversed_ = Claim(**CLAIM | {"name": "r", "expects": "more"})
    found = verdicts_on([(Claim(**CLAIM), RUNS), (reversed_, RUNS)])
    (part,), (other,) = (one.parts for one in found)
    assert part.p == pytest.approx(p) and (part.verdict, other.verdict) == (HOLDS, FAILS)
    assert (
        part.brief == f"its loss is typically {np.exp(np.subtract(*logs).mean()):.2f} times as high"
    )
    held, failed = claims.corrected(found)
    assert held[2] == pytest.approx(2 * p) and failed[3] is (False if 2 * p < 0.05 else None)
    table = tables.own_ledger([(Claim(**CLAIM), RUNS), (reversed_, RUNS)]).frame
    assert list(table["verdict"]) == [HOLDS, FAILS] and list(table["n"]) == [3, 3]


def test_the_size_of_a_claim_is_held_against_what_one_more_run_would_give():
    ends = [[claims.last_loss(r) for r in RUNS[key]] for key in ("m", "a")]
    for size in (0.13, 0.5):
        claim = Claim(**CLAIM | {"measure": "last loss", "size": size})
        (part,) = verdicts_on([(claim, RUNS)])[0].parts
        assert part.size.startswith("inside: −0.13" if size == 0.13 else "outside: −0.5")
        assert part.numbers.mean == pytest.approx(np.mean(ends[0]) - np.mean(ends[1]))
        assert "the claimed size is" in str(conclusions.claim(claim, RUNS))
    (part,) = verdicts_on([(Claim(**CLAIM | {"size": 0.6}), RUNS)])[0].parts
    assert part.size.startswith("inside: 0.60 times against 0.")


def test_accuracies_need_runs_that_differ_in_what_the_claim_names_alone():
    def wrong(count, **settings):
        return [made_up_run(wrong={(1, 2): count + s}, seed=s, **settings) for s in range(3)]

    runs = {"a": wrong(9), "m": wrong(40, optimizer="momentum")}
    for split in ("test", "training"):
        claim = Claim(**CLAIM | {"measure": f"{split} accuracy"})
        (part,) = verdicts_on([(claim, runs)])[0].parts
        assert part.verdict == HOLDS and part.numbers.mean == pytest.approx(-3.1)
    other = {"a": wrong(9), "m": wrong(40, optimizer="momentum", lr=0.1)}
    assert verdicts_on([(claim, other)]) == []
    assert "do not suffice" in str(conclusions.claim(claim, other))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first": {"optimiser": "sgd"}}, "Did you mean 'optimizer'"),
        ({"first": {"seed": 1}}, "a field in first of claim 'm' is 'seed'"),
        ({"first": {"lr": "fast"}}, "lr is 'fast'; it must be a number above 0"),
        ({"first": "momentum"}, "it must name fields of Config"),
        ({"first": {"optimizer": "adam"}}, "are the same"),
        ({"measure": "speed"}, "measure of claim 'm' is 'speed'; it must be one of log-loss area"),
        ({"expects": "fewer"}, "must be one of less, more"),
        ({"size": 2}, "must be below 1"),
        ({"size": -1}, "a number above 0"),
        ({"name": ""}, "a claim needs one with a letter"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_a_sentence(change, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        Claim(**CLAIM | change)


def test_claims_are_read_from_a_file_and_stored_as_json(tmp_path):
    path = tmp_path / "claims.toml"
    path.write_text('[m]\nsays = "So."\nfirst = {optimizer = "momentum"}\nexpects = "less"\n')
    (claim,) = read_claims(path).values()
    assert claim == Claim(**CLAIM)
    stored = json.loads(json.dumps(conclusions.claim(claim, RUNS).call["from"], sort_keys=True))
    assert decode(stored["number"], None) == claim
    for text, said in (
        ('[m]\nsays = "So."\n', "must be a table with expects, first, says"),
        ("[m", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_claims(path)
    with pytest.raises(ConfigError, match="cannot be read \\(No such file"):
        read_claims(tmp_path / "none.toml")


OWN = """
from labkit import Claim, Config, conclusions, plots, run_all, vary
runs = run_all(vary(Config(epochs=1), lr=[0.01, 0.1]))
claim = Claim(name='fast', says='Fast is worse.', first={'lr': 0.1}, expects='more')
conclusions.claim(claim, runs)
"""


def test_a_notebook_of_ones_own_without_parameters_is_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", os.pathsep.join(map(str, [tmp_path / "runs", RECORDS])))
    made = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    made.cells = [nbformat.v4.new_markdown_cell("# Fast"), nbformat.v4.new_code_cell(OWN.strip())]
    nbformat.write(made, tmp_path / "fast.ipynb")
    with pytest.raises(ConfigError, match="no parameter 'epochs'"):
        build.write_report(tmp_path / "out", [tmp_path / "fast.ipynb"], epochs=3)
    page = build.write_report(tmp_path / "out", [tmp_path / "fast.ipynb"])
    verdict = verify(page)
    assert (verdict.problems, verdict.missing) == ([], [])
    text = page.read_text("utf-8")
    ids = [tag["id"] for tag in BeautifulSoup(text, "html.parser").find_all(id=True)]
    assert "claim-fast" in ids and len(set(ids)) == len(ids)
    page.write_text(text.replace(" times as high", "7 times as high", 1))
    assert any("times as high" in problem for problem in verify(page).problems)
    page.write_text(text)
    shutil.rmtree(build.evidence(page))
    assert verify(page).problems == [] and len(verify(page).missing) == 2


def test_parameters_of_ones_own_are_what_they_are_called(tmp_path):
    """A learning rate of labkit's notebooks is compared with the baseline's, one's own need not."""
    made = nbformat.v4.new_notebook(metadata=PYTHON)
    made.cells = [nbformat.v4.new_code_cell("lr: float = 0.01\nours: int = 3\nrate: str = 'x'")]
    made.cells[0].metadata.tags = ["parameters"]
    nbformat.write(made, tmp_path / "own.ipynb")
    paths = build.find_notebooks([tmp_path / "own.ipynb"])
    given = {"lr": "0.01", "ours": "5", "rate": "slow"}
    assert build.plan(paths, {}, given) == {"own": given}
    with pytest.raises(ConfigError, match="lr is '0'; it must be a number above 0"):
        build.plan(paths, {}, {"lr": "0"})


def test_the_original_is_beside_nothing_that_it_never_varied():
    usual = {"a": [made_up_run()], "b": [made_up_run(activation="gelu")]}
    assert set(original.beside(usual)) == {"a"}
    assert original.beside(usual | {"c": [made_up_run(optimizer="sgd")]}) == {}
    assert "original" in plots.loss_by_epoch(usual).alt
    assert "original" not in plots.loss_by_epoch(RUNS).alt + tables.summary(RUNS).html()


def test_an_optimizer_is_one_line(monkeypatch):
    monkeypatch.setitem(config.OPTIMIZERS, "rms", ("RMSprop", {"momentum": 0.5}, "RMSprop"))
    model = torch.nn.Linear(2, 1)
    made = make_optimizer(model, config.Config(optimizer="rms", lr=0.3, weight_decay=0.1))
    same = torch.optim.RMSprop(model.parameters(), lr=0.3, weight_decay=0.1, momentum=0.5)
    assert type(made) is type(same) and made.defaults == same.defaults
