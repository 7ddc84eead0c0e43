import json
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
import torture
from matplotlib.figure import Figure
from nbclient import NotebookClient

from labkit.core.config import Config
from labkit.core.values import ConfigError
from labkit.lab.progress import REPORT, Live, duration, in_jupyterlab, tell, track

LOSSES = [torch.tensor(0.5), torch.tensor(0.25)]


def lines(capsys, log):
    passed = list(track(iter(LOSSES), Config(epochs=1), 2, log))
    assert passed == LOSSES
    return capsys.readouterr().out.splitlines()


def test_a_line_an_epoch_in_the_originals_wording(capsys, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert lines(capsys, "epoch") == [
        "baseline, seed 0: training",
        "Train Epoch: 0 Loss: 0.375000  (0:00 left)",
    ]


def test_a_training_that_goes_on_counts_the_earlier_losses(capsys, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    passed = list(track(iter(LOSSES[1:]), Config(epochs=2), 2, "epoch", [2.0, 1.0, 0.5]))
    assert passed == LOSSES[1:]
    assert capsys.readouterr().out.splitlines() == [
        "baseline, seed 0: goes on at epoch 1, iteration 1",
        "Train Epoch: 1 Loss: 0.375000  (0:00 left)",
    ]


def test_a_line_an_iteration_in_the_originals_wording(capsys):
    assert lines(capsys, "iteration")[1:3] == [
        "Train Epoch 0 Iter: 0 Loss: 0.500000",
        "Train Epoch 0 Iter: 1 Loss: 0.250000",
    ]


def test_silence_and_an_unknown_log(capsys):
    assert lines(capsys, "none") == []
    with pytest.raises(ConfigError, match="log is 'verbose'"):
        lines(capsys, "verbose")


def test_duration():
    assert duration(187.6) == "3:07"


def test_jupyterlab_gets_one_display_and_others_plain_lines(own_store):
    """The display ends as a line of text, which is all that the saved notebook keeps of it."""
    source = f"""
        import os, sys; sys.path.insert(0, {str(Path(torture.__file__).parent)!r})
        import torture
        from labkit import Config, run_all, vary
        torture.data.load = lambda name, small=torture.small_data(40): small
        settings = vary(Config(batch_size=16, epochs=1), lr=[0.001, 0.1])
    """
    call = "runs = run_all(settings, device='cpu', retrain=True)"
    watched = f"os.environ['JPY_SESSION_NAME'] = '03_lr.ipynb'\n{call}"
    cells = [nbformat.v4.new_code_cell(c) for c in (textwrap.dedent(source), call, watched)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client, shown = NotebookClient(notebook, kernel_name="python3"), []
    process = client.process_message

    def seen(message, *rest):
        if message["msg_type"] in ("display_data", "update_display_data"):
            shown.append(message["content"]["data"])
        return process(message, *rest)

    client.process_message = seen
    client.execute()
    plain, watched = notebook.cells[1:]
    assert "".join(o.text for o in plain.outputs).count("Train Epoch: 0 Loss") == 2
    texts = [data["text/plain"] for data in shown if "image/png" in data]
    assert texts[0] == "run 1 of 2, epoch 0.2 of 1"  # after the first of three iterations
    (line,) = watched.outputs
    assert re.fullmatch(r"2 runs: 2 trained in 0:\d\d", line.data.pop("text/plain"))
    assert not line.data


def live(monkeypatch, labels, missing, start=0.0):
    """A display, the texts that it shows, and a clock to turn."""
    texts, clock = [], [start]
    handle = SimpleNamespace(update=lambda bundle, raw: texts.append(bundle["text/plain"]))
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: handle)
    monkeypatch.setattr("labkit.lab.progress.time.perf_counter", lambda: clock[0])
    return Live(labels, missing), texts, clock


def test_the_display_says_which_run_and_when_all_are_done(monkeypatch):
    first, second, third = (Config(seed=seed) for seed in range(3))
    labels = dict.fromkeys((first, second, third), "lr 0.01")
    display, texts, clock = live(monkeypatch, labels, [second, third], 100.0)
    curve = [(0.0, 2.5), (1.0, 0.5)]
    display.note(second, 0.25, curve)  # it goes on from there
    clock[0] = 110
    display.note(second, 0.5, curve)
    clock[0] = 111
    display.note(second, 0.55, curve)  # too soon to be drawn again
    clock[0] = 120
    display.note(third, 0.0, curve)
    display.end(False)
    display.note(second, 1.0, curve)
    clock[0] = 130
    display.note(third, 1.0, curve)
    display.end(True)
    assert texts[:3] == [
        "run 2 of 3, epoch 2.5 of 10",
        "run 2 of 3, epoch 5.0 of 10, 1:00 left for all",
        "runs 2–3 of 3, epoch 0.0 of 10, 1:36 left for all",
    ]
    assert texts[3] == "3 runs: 1 recorded, 2 not trained to the end"
    assert texts[-1] == "3 runs: 1 recorded, 2 trained in 0:30"


def test_a_record_that_goes_meanwhile_is_trained_too(monkeypatch):
    display, texts, _ = live(monkeypatch, {Config(): "lr 0.01"}, [], 1.0)
    display.note(Config(), 0.5, [(0.0, 2.5)])
    display.end(False)
    assert texts == ["run 1 of 1, epoch 5.0 of 10", "1 run: 1 not trained to the end"]


def test_a_script_that_a_cell_starts_has_plain_lines(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "03_lr.ipynb")
    assert not in_jupyterlab()


def test_the_curves_have_plain_numbers_and_a_colour_for_each_setting(monkeypatch):
    configs = Config(), Config(seed=1), Config(lr=0.1)
    labels = dict(zip(configs, ("lr 0.01", "lr 0.01", "lr 0.1"), strict=True))
    display, _, _ = live(monkeypatch, labels, configs)
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: figures.append(self))
    for config in configs:
        display.note(config, 0.1, [(0.0, 0.3), (0.5, 0.04)])
    display.picture("")
    (axes,) = figures[-1].axes
    one, again, other = (line.get_color() for line in axes.lines)
    assert one == again != other
    assert [text.get_text() for text in axes.get_legend().texts] == ["lr 0.01", "lr 0.1"]
    formatter = axes.yaxis.get_major_formatter()
    assert [formatter(tick) for tick in (0.01, 0.1, 2.0)] == ["0.01", "0.1", "2"]


def test_what_a_process_reports_is_what_the_display_shows(capsys):
    losses = [float(n) for n in range(1000)]
    tell("report", Config(epochs=2), losses, 2000)
    share, curve = json.loads(capsys.readouterr().out.removeprefix(REPORT))
    assert share == pytest.approx(0.5, abs=0.001) and len(curve) == 100
    assert curve[1] == [0.01, 14.5]  # the mean of the losses 10 to 19, from epoch 0.01 on
    tell("report", Config(epochs=2), losses, 2000, ended=True)
    assert json.loads(capsys.readouterr().out.removeprefix(REPORT))[0] == 1
    tell("epoch", Config(epochs=2), losses, 2000)
    assert capsys.readouterr().out == ""
