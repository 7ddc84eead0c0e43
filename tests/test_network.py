"""A network of the user's own: known by its source, trained as it is, in less time if may be."""

import contextlib
import copy
import hashlib
import importlib
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import forge, interrupted, train_run
from torch import nn
from torture import same

from labkit import conclusions, plots, reasons, tables
from labkit.core import train
from labkit.core.config import Config, vary
from labkit.core.evaluate import twin_of
from labkit.core.model import build
from labkit.core.network import NetworkError
from labkit.core.values import ConfigError
from labkit.lab import cost, experiment, workers
from labkit.lab import slim as slimming
from labkit.lab.diagnostics import Diagnostics
from labkit.report import verify
from labkit.store.folder import Store
from labkit.store.record import DamagedError

CPU = torch.device("cpu")
SOURCE = '''
import torch
import torch.nn.functional as F
from torch import nn


def small(activation, classes):
    """All that slim can take: biases, names of paddings, a size of its own."""
    return nn.Sequential(
        nn.Conv2d(1, 8, (3, 5), padding="same"), nn.BatchNorm2d(8), activation(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 7, padding=3), nn.BatchNorm2d(8), activation(), nn.AvgPool2d(7),
        nn.Conv2d(8, 4, 3, padding=1), activation(), nn.Flatten(), nn.Linear(4, classes),
    )


def dropping(classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Dropout(0.5),
        nn.LazyLinear(classes),
    )


class Odd(nn.Module):
    """Whatever a ResNet has not: no linear layer at the end, groups, dropout that evaluation does
    not switch off, a buffer that learns, layers that are frozen, unused, or used at random."""

    def __init__(self, classes):
        super().__init__()
        self.first = nn.LazyConv2d(8, 3, stride=2, padding_mode="circular", padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.skipped = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.unused = nn.Linear(3, 3)
        self.frozen = nn.Conv2d(8, 8, 1)
        self.frozen.requires_grad_(False)
        self.head = nn.Conv2d(8, classes, 1)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        x = self.norm(self.grouped(self.first(x)))
        if not self.training or torch.rand(()) < 0.5:
            x = self.relu(self.skipped(x))
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean((0, 2, 3)), 0.1)
        x = F.dropout(self.frozen(x - self.mean[:, None, None]), 0.1)
        return self.head(x).mean((2, 3))


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, 10)
        self.register_buffer("seen", torch.zeros(784))

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            self.seen += x.detach().mean(0)
        return self.fc(x + self.seen)
'''


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """The user's module, in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets.py"
    path.write_text(SOURCE)
    return path


# ----------------------------------------------------------------------------- known by its source


def test_the_source_is_part_of_the_identity(nets):
    config = Config(model="nets:small")
    sha256 = hashlib.sha256(nets.read_bytes()).hexdigest()
    assert config.model == f"nets:small@{sha256[:12]}"
    assert config.setting() == "baseline, network nets:small"
    nets.write_text(SOURCE + "\n")
    changed = Config(model="nets:small")
    assert changed.digest("x") != config.digest("x")
    with pytest.raises(NetworkError, match="by now has the checksum") as caught:
        build(config)
    assert f"model is '{config.model}'; it must be the source" in str(caught.value)
    nets.unlink()  # a record is read without it
    assert Config(**config.to_dict()) == config == config.replace(seed=1).replace(seed=0)


def test_what_is_built_is_the_source_as_it_is_now(nets, monkeypatch):
    monkeypatch.syspath_prepend(nets.parent)
    module = importlib.import_module("nets")
    monkeypatch.setitem(__import__("sys").modules, "nets", module)
    assert build(Config(model="nets:small"))[0].out_channels == 8
    nets.write_text(SOURCE.replace("8", "6"))
    assert build(Config(model="nets:small"))[0].out_channels == 6
    assert module.small(nn.ReLU, 10)[0].out_channels == 8  # the user's own module is left alone


def test_a_module_may_lie_in_a_package(nets):
    package = nets.parent / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    config = Config(model="mine.nets:f@0123456789ab")
    (package / "nets.py").write_text("from torch import nn\nf = lambda: nn.LazyLinear(10)\n")
    assert Config(model="mine.nets:f") != config  # only looked at, and so nothing is run


def test_weights_follow_from_the_seed_and_convolutions_from_init(nets):
    one, again, other = (build(Config(model="nets:small", seed=s)).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    for init, deviation in (("kaiming", (2 / (8 * 49)) ** 0.5), ("default", (3 * 8 * 49) ** -0.5)):
        model = build(Config(model="nets:small", init=init))
        assert model[6].weight.std().item() == pytest.approx(deviation, rel=0.03)


BAD = {
    "gone:f": "gone must be a module with a source file in",
    "sys:exit": "sys must be a module with a source file",
    "nets:": "it must be module:function, as in nets:wide",
    "nets:f g": "it must be module:function",
    "nets:missing": r"nets.py must have a function missing",
    "nets:number": r"nets.py must have a function number",
    "nets:words": "an nn.Module with weights to train, not a list",
    "nets:empty": "with weights to train, not one without any",
    "nets:eleven": r"its logits must be \[n, 10\], not \[11, 11\] for n = 11",
    "nets:maps": r"its logits must be \[n, 10\], not \[11, 10, 28, 28\]",
    "nets:pair": r"its logits must be \[n, 10\], not a tuple",
    "nets:greedy": "and raised TypeError: greedy\\(\\) missing 1 required positional argument",
    "nets:colour": r"images \[11, 1, 28, 28\], and raised RuntimeError: .*3 channels",
    "broken:f": "its module must run without an error, and raised ZeroDivisionError: division",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_network_is_a_sentence_before_anything_is_trained(name, nets, own_store):
    nets.write_text(
        """
from torch import nn
number = 3
words = lambda: ["conv"]
empty = nn.Flatten
eleven = lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 11))
maps = lambda: nn.Conv2d(1, 10, 1)
class pair(nn.LSTM):
    def __init__(self): super().__init__(28, 10)
    def forward(self, x): return super().forward(x[:, 0])
def greedy(depth): pass
colour = lambda: nn.Conv2d(3, 10, 28)
"""
    )
    (nets.parent / "broken.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=BAD[name]) as caught:
        settings = {"good": Config(epochs=1), "bad": Config(model=name, epochs=1)}
        experiment.run_all(settings, device="cpu", log="none")
    assert str(caught.value).startswith(f"model is '{name}")
    assert not list(own_store.glob("*.json"))


def test_settings_that_mean_nothing_for_a_network_are_refused(nets):
    for model in ("cnn", "nets:small"):
        with pytest.raises(ConfigError, match="max_pool is False; it must be true for "):
            Config(model=model, max_pool=False)
    with pytest.raises(ConfigError, match=r"resnet50.*Did you mean 'resnet"):
        Config(model="resnet50")
    with pytest.raises(ConfigError, match="must have 12×12 pixels, not 8×28"):
        build(Config(model="cnn"), pixels=(8, 28))


# ------------------------------------------------------------------- trained, measured, recorded


@pytest.mark.parametrize("name", ["cnn", "nets:small", "nets:dropping", "nets:Odd"])
def test_a_run_that_was_interrupted_ends_with_the_bits_of_one_that_was_not(
    name, nets, tiny, tmp_path, monkeypatch
):
    config = Config(model=name, batch_size=16, epochs=2, lr=0.001)
    torch.manual_seed(5)
    whole = train_run(config, tiny, CPU)
    drawn = torch.rand(4)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(4))  # none of the user's own numbers
    state = interrupted(config, tiny, tmp_path / f"{whole.digest}.checkpoint", 4, monkeypatch)
    resumed = train_run(config, tiny, CPU, checkpoint=state)
    assert len(resumed.provenance["resumed"]) == 1 and same(resumed, whole)
    store = Store()
    store.save(resumed)
    found = store.get(whole.digest)
    assert same(found, whole) and found.config == config and found.layers == whole.layers
    linear = name != "nets:Odd"
    assert ("running_silent" in found.measures) == ("silenced" in found.measures) == linear
    runs = {"it": [found]}
    for show in (plots.loss_by_epoch, plots.accuracy_by_epoch, tables.summary, tables.lag):
        show(runs)
    for show in (s for s in vars(reasons).values() if hasattr(s, "__wrapped__")):
        shown = show(runs)
        said = getattr(shown, "alt", None) or shown.markdown
        assert "inf" not in said.replace("infinite", "") and "nan" not in said, said


def test_with_what_lags_not_both_accuracies_are_the_same_and_words_say_why(nets, tiny):
    config = Config(model="nets:Remembering", batch_size=16, epochs=2)
    run = train_run(config, tiny, CPU)
    assert np.array_equal(run.predicted("recalibrated"), run.predicted("running"))
    assert np.array_equal(run.confidence("recalibrated"), run.confidence("running"))
    runs = {"mine": [run]}
    assert "no batch normalisation, so that nothing lags" in conclusions.lag(runs).markdown
    assert "without lag: mine" in reasons.lag(runs).alt


def test_networks_of_different_layers_share_a_figure(nets, tiny):
    models = ("resnet18", "cnn", "nets:small")
    settings = vary(Config(epochs=1), model=models)
    runs = {label: [train_run(config, tiny, CPU)] for label, config in settings.items()}
    assert list(runs) == ["baseline", "baseline, LeNet-5", "baseline, network nets:small"]
    figure = reasons.reaching(runs)
    for axes in figure.axes:
        lines = [line.get_xydata() for line in axes.lines]
        for (run,), points in zip(runs.values(), lines, strict=True):
            assert len(points) == len(run.layers["weights"])
            assert points[0, 0] == 0 and points[-1, 0] == 1
            assert set(points[:, 1]) <= set(run.measure("gradient_norm").ravel().astype(float))
    assert reasons.lag(runs).alt.endswith("and so without lag: baseline, LeNet-5.")
    assert "a convolution's" in reasons.steps_words({"": runs["baseline"]}).markdown
    assert "a convolution's" not in reasons.steps_words({"": runs["baseline, LeNet-5"]}).markdown


def test_a_gradient_is_measured_of_what_learns(nets, tiny):
    model = build(Config(model="nets:Odd", init="default"))
    found = Diagnostics(model, twin_of(model), tiny, Config(), 10)
    found.before(0)
    learns = [n for n, p in model.named_parameters() if p.requires_grad and p.ndim > 1]
    assert [f"{name}.weight" for name in found.layers["weights"]] == learns
    norms = dict(zip(learns, found.table["gradient_norm"][0].tolist(), strict=True))
    assert norms["unused.weight"] == 0 and norms["head.weight"] > 0
    adam = train.make_optimizer(model, Config())
    train.step(model, adam, tiny, Config(), torch.arange(16))
    found.after(1)
    changes = dict(zip(learns, found.table["relative_update"][0].tolist(), strict=True))
    assert changes["unused.weight"] == 0 and np.isnan(changes["head.weight"])  # it began at zero


def test_processes_find_the_module_where_this_one_does(nets, monkeypatch, tmp_path, capfd):
    monkeypatch.syspath_prepend(nets.parent)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(workers, "WORTH", 0)
    monkeypatch.setattr(cost, "WORTH", 0)  # it says so
    monkeypatch.setattr(workers, "processes", lambda runs: 2)
    config = Config(model="nets:dropping", epochs=1, batch_size=500, epoch_accuracy=False)
    runs = experiment.run_all({"it": config}, seeds=2, device="cpu")["it"]
    assert "2 at a time" in capfd.readouterr().out and all(run.checksum for run in runs)
    monkeypatch.setattr(workers, "WORTH", 1e9)
    own = Store(tmp_path / "own", shipped=None)
    (alone,) = experiment.run_all({"it": config}, seeds=[1], device="cpu", store=own)["it"]
    assert alone.provenance["threads"] == runs[1].provenance["threads"] and same(alone, runs[1])


def test_a_record_that_states_no_source_is_refused(nets, tiny):
    run = train_run(Config(model="nets:Remembering", batch_size=20, epochs=1), tiny, CPU)
    store = Store(shipped=None)
    store.save(run)

    def unsigned(record):
        record["config"]["model"] = "nets:Remembering"

    forge(store, run, unsigned)
    with pytest.raises(DamagedError):
        store.get(run.digest)


def test_verifying_runs_nobodys_code(nets):
    config = Config(model="nets:small").to_dict()
    for maker in (tables.layers, plots.architecture):
        call = json.loads(json.dumps(maker(Config(model="nets:small")).call))
        assert call["from"] == {"config": {"config": config}}
        with pytest.raises(verify.Unsafe, match="nets:small"):
            verify.again(call, None)
        verify.again(maker(Config(model="cnn")).call, None)
    assert {name for name, function in _makers() if _builds(function)} == set(verify.BUILDING)


def _makers():
    for kind, module in verify.KINDS.items():
        for name, function in vars(module).items():
            if hasattr(function, "__wrapped__"):
                yield f"{kind}.{name}", function


def _builds(function):
    built = []
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Exception):
        patch.setattr("labkit.core.model.build", lambda *_, **__: built.append(1))
        function(config=Config())
    return built


# -------------------------------------------------------------------------------- in less time


def forwards(model, images):
    logits = model.train()(images)
    F.cross_entropy(logits, torch.arange(len(images)) % 10).backward()
    return logits, {n: p.grad for n, p in model.named_parameters()}


def test_a_slim_network_of_ones_own_is_the_same_function_with_the_same_gradients(nets, small):
    plain = build(Config(model="nets:small", init="default")).double()
    slim = slimming.slim(copy.deepcopy(plain))
    assert not slimming.left(slim)
    images = small.prepare(small.train.images[:16], "mean-std").double()
    (expected, gradients), (found, ours) = (forwards(model, images) for model in (plain, slim))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    reduced = 0
    for name, gradient in gradients.items():
        module = slim.get_submodule(name.rpartition(".")[0])
        if isinstance(module, slimming.LiveConv2d) and name.endswith("weight"):
            reduced += gradient.numel() - module.weight.numel()
            gradient = gradient[module.live].permute(0, 2, 3, 1)
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-12)
    assert reduced == 4 * 8 * 8  # one tap of nine meets the pixel that is left at the end
    state = slim.state_dict()
    assert list(state) == list(plain.state_dict())
    plain.load_state_dict(state)
    assert torch.allclose(plain.eval()(images), slim.eval()(images), rtol=0, atol=1e-12)


def test_slim_takes_a_network_too_whose_last_layer_begins_at_zero(nets):
    model = build(Config(model="nets:small"))
    nn.init.zeros_(model[-1].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not slimming.left(slimming.slim(model))
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


def looks(model, x):
    return F.conv2d(x, model.one.weight) + model.one(x)


LEFT = {
    "a view": lambda m, x: m.one(x).view(len(x), -1)[:, :10],
    "a list": lambda m, x: m.several[0](x).mean((2, 3)),
    "its weight": lambda m, x: looks(m, x).mean((2, 3)),
    "two sizes": lambda m, x: m.one(x).mean((2, 3)) + m.one(x[:, :, 9:]).mean((2, 3)),
    "two names": lambda m, x: m.again(x).mean((2, 3)),
    "tied": lambda m, x: (m.one(x) + m.tied(x)).mean((2, 3)),
    "another size to train": lambda m, x: m.one(x[:, :, 3 * m.training :]).mean((2, 3)),
    "hooked": lambda m, x: (m.one(x) + m.normed(x)).mean((2, 3)),
}


@pytest.mark.parametrize("why", LEFT)
def test_what_slim_cannot_take_trains_as_it_is(why, small):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(1, 10, 3)
            if why == "a list":
                self.several = [self.one]
            elif why == "two names":
                self.again = self.one
            elif why == "tied":
                self.tied = nn.Conv2d(1, 10, 3)
                self.tied.weight = self.one.weight
            elif why == "hooked":
                self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 10, 3))

        def forward(self, x):
            return LEFT[why](self, x)

    torch.manual_seed(0)
    plain = Network()
    slim = slimming.slim(copy.deepcopy(plain))
    assert slimming.left(slim) == (["normed"] if why == "hooked" else slimming.left(plain))
    config, losses = Config(batch_size=60, epochs=1), []
    for model in (plain, slim):
        adam = train.make_optimizer(model, config)
        losses.append([loss.item() for loss in train.fit(model, adam, small, config)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_slim_leaves_is_said_once(nets, tiny, capsys):
    config = Config(model="nets:Odd", batch_size=20, epochs=1)
    train_run(config, tiny, CPU, log="epoch")
    said = capsys.readouterr().out
    assert said.count("not in less time: first, grouped") == 1, said
    train_run(config.replace(model="nets:small"), tiny, CPU, log="epoch")
    assert "less time" not in capsys.readouterr().out
