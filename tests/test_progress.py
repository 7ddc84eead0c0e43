import nbformat
import pytest
import torch
from nbclient import NotebookClient

from labkit.core.config import Config
from labkit.core.values import ConfigError
from labkit.lab.progress import duration, track

LOSSES = [torch.tensor(0.5), torch.tensor(0.25)]


def lines(capsys, log):
    passed = list(track(iter(LOSSES), Config(epochs=1), 2, log))
    assert passed == LOSSES
    return capsys.readouterr().out.splitlines()


def test_a_line_an_epoch_in_the_originals_wording(capsys, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert lines(capsys, "epoch") == [
        "relu, lr 0.01, batch 64, seed 0: training",
        "Train Epoch: 0 Loss: 0.375000  (0:00 left)",
    ]


def test_a_training_that_goes_on_counts_the_earlier_losses(capsys, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    passed = list(track(iter(LOSSES[1:]), Config(epochs=2), 2, "epoch", [2.0, 1.0, 0.5]))
    assert passed == LOSSES[1:]
    assert capsys.readouterr().out.splitlines() == [
        "relu, lr 0.01, batch 64, seed 0: goes on at epoch 1, iteration 1",
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


def test_jupyterlab_gets_a_live_curve_and_others_plain_lines(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    source = (
        "import os, torch\nfrom labkit import Config\nfrom labkit.lab.progress import track\n"
        "for _ in track([torch.tensor(0.5), torch.tensor(0.2)], "
        "Config(epochs=1), 2, 'epoch'): pass"
    )
    plain = nbformat.v4.new_code_cell(source)
    watched = nbformat.v4.new_code_cell(f"os.environ['JPY_SESSION_NAME'] = '03_lr.ipynb'\n{source}")
    notebook = nbformat.v4.new_notebook(cells=[plain, watched])
    NotebookClient(notebook, kernel_name="python3").execute()
    for cell, pictures_expected in zip(notebook.cells, (0, 1), strict=True):
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        text = "".join(o.get("text", "") for o in cell.outputs)
        assert len(pictures) == pictures_expected
        assert ("Train Epoch: 0 Loss" in text) != bool(pictures_expected)
    assert pictures[0].data["text/plain"].endswith("epoch 0, done")
