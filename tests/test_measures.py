"""What a training measures on the way, against computations of another kind."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torture
from conftest import load
from helpers import train_run
from sklearn.metrics import confusion_matrix
from torch import nn

from labkit.core import layers, train
from labkit.core import model as models
from labkit.core.config import Config
from labkit.core.data import Data
from labkit.core.evaluate import calibration, evaluate, predict, recalibrate, twin_of
from labkit.core.measures import CONFIDENCE_EDGES, MEASURES, RECALIBRATED, RUNNING, sample_size
from labkit.lab import diagnostics, graphs
from labkit.lab import slim as slimming
from labkit.lab.diagnostics import Diagnostics, moments

CPU = torch.device("cpu")


class Watched(Data):
    """Data that remember which images a network was given."""

    def prepare(self, images, normalization):
        prepared = super().prepare(images, normalization)
        self.__dict__.setdefault("given", []).append((images, prepared))
        return prepared


def watched(data):
    return Watched(**{f.name: getattr(data, f.name) for f in dataclasses.fields(data)})


def diagnosed(model, data, config=None, updates=10, done=0):
    config = config or Config()
    diagnostics = Diagnostics(model, twin_of(model), data, config, updates)
    diagnostics.before(done)
    return diagnostics


# ------------------------------------------------------------------------ gradients and updates


def test_gradients_are_those_of_autograd_on_torchs_own_layers(tiny):
    data, plain = watched(tiny), models.build(Config(activation="tanh"))
    slim = slimming.slim(copy.deepcopy(plain))
    found = diagnosed(slim, data)
    pairs = zip(tiny.train.images, tiny.train.labels, strict=True)
    labels = {image.numpy().tobytes(): label for image, label in pairs}
    gradients = []
    for images, prepared in data.given:
        targets = torch.stack([labels[image.numpy().tobytes()] for image in images])
        plain.zero_grad()
        F.cross_entropy(plain.train()(prepared), targets).backward()
        gradients.append({name: p.grad.clone() for name, p in plain.named_parameters()})
    assert [len(images) for images, _ in data.given] == [10] * 4  # 40 images
    assert len({image.numpy().tobytes() for images, _ in data.given for image in images}) == 40
    mean = {name: sum(g[name] for g in gradients) / 4 for name in gradients[0]}
    weights = found.layers["weights"]
    expected = [mean[f"{name}.weight"].norm() for name in weights]
    assert torch.allclose(found.table["gradient_norm"][0], torch.stack(expected), rtol=1e-3)

    def square(gradient):
        return sum(float(g.double().square().sum()) for g in gradient.values())

    small_square, large = np.mean([square(g) for g in gradients]), square(mean)
    # Appendix A.1: |G|² = (B|G_B|² − b|G_b|²)/(B − b), tr Σ = (|G_b|² − |G_B|²)/(1/b − 1/B)
    assert float(found.table["gradient_square"][0]) == pytest.approx(
        (40 * large - 10 * small_square) / 30, rel=2e-3
    )
    assert float(found.table["gradient_variance"][0]) == pytest.approx(
        (small_square - large) / (1 / 10 - 1 / 40), rel=2e-3
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_relative_update_is_what_a_step_changes(tiny, optimizer):
    config = Config(optimizer=optimizer, lr=0.01)
    model = slimming.slim(models.build(config))
    adam = train.make_optimizer(model, config)
    found = diagnosed(model, tiny, config)
    before = {name: w.detach().double().numpy().copy() for name, w in model.named_parameters()}
    train.step(model, adam, tiny, config, torch.arange(16))
    found.after(1)
    after = {name: w.detach().double().numpy() for name, w in model.named_parameters()}
    names = [f"{name}.weight" for name in found.layers["weights"]]
    norms = [np.linalg.norm(before[name]) for name in names]
    assert np.allclose(found.table["weight_norm"][0], norms, rtol=1e-5)
    changes = [np.linalg.norm(after[n] - before[n]) / w for n, w in zip(names, norms, strict=True)]
    assert np.allclose(found.table["relative_update"][0], changes, rtol=1e-3)
    if optimizer == "adam":  # whose first step changes every weight by the learning rate
        size = np.sqrt(before["conv1.weight"].size)
        assert changes[0] == pytest.approx(0.01 * size / norms[0], rel=0.01)
    assert found.table["relative_update"][1:].isnan().all()  # moments that are still to come


class Constant(nn.Module):
    """Logits that no image changes: the gradient's mean and variance follow from the labels."""

    def __init__(self, inputs=3):
        super().__init__()
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x):
        return self.fc(torch.ones(len(x), self.fc.in_features))


def test_the_noise_scale_is_right_where_it_is_known():
    """An image's gradient is (softmax − one-hot) for the bias, and as much for each input."""
    model, data = Constant(), load("mnist-5k")
    labels = data.train.labels
    squares, variances = [], []
    for seed in range(300):
        diagnostics = diagnosed(model, data, Config(seed=seed))
        squares.append(float(diagnostics.table["gradient_square"][0]))
        variances.append(float(diagnostics.table["gradient_variance"][0]))
    answer = model(torch.zeros(1)).softmax(1)[0].detach().double().numpy()
    each = answer - np.eye(10)[labels.numpy()]  # [images, 10], of the bias
    mean = each.mean(0)
    square, variance = 4 * (mean**2).sum(), 4 * ((each - mean) ** 2).sum(1).mean()
    for found, expected, error in ((squares, square, 0.2), (variances, variance, 0.02)):
        scatter = np.std(found) / np.sqrt(len(found))  # of the mean
        assert abs(np.mean(found) - expected) < 4 * scatter and scatter < error * expected
    assert set(diagnostics.layers) == {"weights"}


# ------------------------------------------------------- dead, saturated, silent, and the lag


def test_units_that_are_dead_by_construction_are_counted(tiny):
    model = models.build(Config())
    with torch.no_grad():
        for norm, channels in (
            (model.bn1, 16),
            (model.layer1[0].bn1, 48),
            (model.layer3[1].bn1, 1),
        ):
            norm.weight[:channels], norm.bias[:channels] = 0, -1
        model.layer4[1].bn2.weight.zero_()
        model.layer4[1].bn2.bias.fill_(-1e6)
    found = diagnosed(model, tiny)
    dead = dict(zip(found.layers["activations"], found.table["dead"][0].tolist(), strict=True))
    assert dead["conv1"] == 16 / 64 and dead["layer1.0.conv1"] == 48 / 64
    assert dead["layer3.1.conv1"] == pytest.approx(1 / 256)
    assert dead["layer4.1.conv2"] == 1 and dead["layer4.1.conv1"] == 0
    assert len(dead) == 17  # as many as layers with weights, but for the last and the shortcuts
    assert found.table["silenced"][0] == 1  # then nothing but the bias answers
    answers = evaluate(model, tiny, tiny.test, "mean-std")
    assert answers.silent.all() and len(set(answers.confidence.tolist())) == 1
    bias = model.fc.bias.softmax(0)
    assert answers.confidence[0] == pytest.approx(float(bias.detach().max()), rel=1e-6)
    other = evaluate(models.build(Config()), tiny, tiny.test, "mean-std")
    assert not other.silent.any()


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_saturated_outputs_are_counted(tiny, activation):
    """Normalised inputs are nearly normal; where the derivative is 5 %, and how often, follows."""
    from scipy import optimize, stats

    def slope(x):
        s = 1 / (1 + np.exp(-x))
        return 4 * s * (1 - s) if activation == "sigmoid" else 1 - np.tanh(x) ** 2

    edge = optimize.brentq(lambda x: slope(x) - 0.05, 0, 20)
    model = models.build(Config(activation=activation))
    with torch.no_grad():
        model.bn1.weight.fill_(3 * edge)
        model.layer1[0].bn1.weight.fill_(1e-3)
        model.layer1[1].bn1.bias.fill_(50)
    found = diagnosed(model, tiny)
    shares = found.table["saturated"][0].tolist()
    saturated = dict(zip(found.layers["activations"], shares, strict=True))
    assert saturated["layer1.0.conv1"] == 0 and saturated["layer1.1.conv1"] == 1
    assert saturated["conv1"] == pytest.approx(2 * stats.norm.sf(1 / 3), abs=0.15)
    assert "dead" not in found.table


def test_the_lag_is_zero_for_the_probes_own_statistics(tiny):
    model = models.build(Config())
    data = watched(tiny)
    found = diagnosed(model, data)
    lag = dict(zip(found.layers["normalizations"], found.table["lag"][0].tolist(), strict=True))
    # before the first update the running averages are 0 and 1
    maps = torch.cat([model.conv1(prepared) for _, prepared in data.given])
    mean, deviation = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0).sqrt()
    expected = (mean**2 + (deviation - 1) ** 2).mean().sqrt()
    assert lag["bn1"] == pytest.approx(expected.item(), rel=1e-3)
    with torch.no_grad():
        model.bn1.running_mean.copy_(mean)
        model.bn1.running_var.copy_(deviation**2)
    assert diagnosed(model, tiny).table["lag"][0, 0] < 1e-3
    with torch.no_grad():
        model.bn1.running_mean.add_(2 * deviation)
    assert diagnosed(model, tiny).table["lag"][0, 0] == pytest.approx(2, rel=1e-3)


# --------------------------------------------------------------------------- recalibration


def trained(config, data):
    model = slimming.slim(models.build(config))
    for _ in graphs.fit(model, train.make_optimizer(model, config), data, config):
        pass
    return model


def test_statistics_are_those_of_one_pass_over_all_the_data(small):
    """The 120 images fit into one batch: what torch's own pass over it finds is exact."""
    config = Config(epochs=2)
    model = trained(config, small)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = twin_of(model)
    recalibrate(twin, small, "mean-std")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    plain = models.build(config)
    plain.load_state_dict(model.state_dict())
    images = small.prepare(small.train.images, "mean-std")
    torch.optim.swa_utils.update_bn([images], plain)
    shapes = {name: after for name, _, _, after in layers.probe(plain, (1, 28, 28))}
    for name, norm in plain.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            values = 120 * shapes[name][1] * shapes[name][2]
            ours = twin.get_submodule(name)
            torch.testing.assert_close(ours.running_mean, norm.running_mean, rtol=1e-3, atol=1e-4)
            biased = norm.running_var * (values - 1) / values
            torch.testing.assert_close(ours.running_var, biased, rtol=1e-3, atol=1e-5)


def test_over_several_batches_they_are_the_populations():
    data = load("mnist-5k")
    model = models.build(Config())
    twin = twin_of(model)
    recalibrate(twin, data, "mean-std")
    chosen = calibration(data.train.labels)
    maps = model.conv1(data.prepare(data.train.images[chosen], "mean-std")).detach()
    mean, variance = maps.mean((0, 2, 3)), maps.double().var((0, 2, 3), correction=0).float()
    torch.testing.assert_close(twin.bn1.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(twin.bn1.running_var, variance, rtol=1e-4, atol=1e-6)


def test_the_images_for_it_are_fixed_and_every_part_of_them_has_all_classes():
    labels = load("mnist-5k").train.labels
    chosen = calibration(labels)
    assert len(chosen) == len(set(chosen.tolist())) == 1000
    assert torch.equal(chosen, calibration(labels))
    for part in (chosen[:500], chosen[500:]):
        assert torch.bincount(labels[part]).tolist() == [50] * 10
    uneven = torch.tensor([0] * 9_000 + [1] * 3_000)
    assert torch.bincount(uneven[calibration(uneven)]).tolist() == [1_500, 500]


@pytest.fixture(scope="module")
def run(small):
    return train_run(Config(epochs=2, lr=0.001), small, CPU)


def test_both_kinds_of_answers_are_recorded_and_counted_like_scikit_learn(run, small):
    model, plain = trained(run.config, small), models.build(run.config)
    plain.load_state_dict(model.state_dict())
    twin = twin_of(model)
    recalibrate(twin, small, "mean-std")
    for statistics, network in ((RUNNING, plain), (RECALIBRATED, twin)):
        network.eval()
        for split in ("train", "test"):
            images = getattr(small, split)
            with torch.no_grad():
                shares = network(small.prepare(images.images, "mean-std")).softmax(1)
            counts = confusion_matrix(images.labels, shares.argmax(1), labels=range(10))
            assert np.array_equal(run.counts(split, statistics), counts)
            if split == "test":
                assert np.array_equal(run.predicted(statistics), shares.argmax(1))
                assert np.allclose(run.confidence(statistics), shares.max(1).values, atol=1e-5)
                assert run.right(statistics).mean() == run.accuracy("test", statistics)
            else:
                by_class = shares.argmax(1)[images.labels.argsort(stable=True)]
                assert np.array_equal(run.measure(f"{statistics}_train_predicted"), by_class)
                bins = run.measure(f"{statistics}_train_confidence")
                sure = shares.max(1).values.numpy()
                assert bins.sum() == 120
                edge = CONFIDENCE_EDGES[4]  # 0.9
                assert bins[:, 4:].sum() == pytest.approx((sure >= edge).sum(), abs=1)
            assert run.accuracies(split, statistics)[-1] == run.accuracy(split, statistics)
    assert not np.array_equal(run.counts("train", RUNNING), run.counts("train", RECALIBRATED))


def test_between_epochs_the_training_accuracy_is_that_of_a_fixed_part(run, small):
    model = trained(run.config.replace(epochs=1), small)  # the first of two epochs
    answers = predict(model, twin_of(model), small, run.config, whole=False)
    assert len(answers[RECALIBRATED]["train"].labels) == sample_size(120) == 30
    assert answers[RUNNING].keys() == {"test"}
    assert np.isnan(run.accuracies("train", RUNNING)[0])
    for statistics, splits in answers.items():
        for split, found in splits.items():
            assert run.accuracies(split, statistics)[0] == found.accuracy()


# -------------------------------------------------------------------- when, and how it is kept


@pytest.mark.parametrize(
    ("updates", "batch_size", "many"),
    [(9380, 64, 40), (600, 1000, 40), (315, 64, 4), (938, 64, 4), (2814, 64, 12), (30, 20, 3)],
)
def test_moments_are_dense_at_first_and_fewer_in_short_trainings(updates, batch_size, many):
    found = moments(updates, batch_size)
    assert len(found) <= many and len(found) >= 0.85 * many
    assert found[0] == 0 and found[-1] == updates - 1 and found == sorted(set(found))
    if many == 40:
        assert sum(update <= 100 for update in found) >= 11
        late = np.diff([update for update in found if update >= 100])
        assert late.max() - late.min() <= 1
    assert moments(1, 4) == moments(6, 50) == [0]


@pytest.fixture
def unmeasured(monkeypatch):
    """The run of a training without moments and without accuracies between epochs."""

    def train(config, data, device):
        with monkeypatch.context() as patch:
            patch.setattr(diagnostics, "moments", lambda *_: [])
            return train_run(config.replace(epoch_accuracy=False), data, device)

    return train


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "gelu"])
def test_measuring_changes_nothing_that_is_trained(tiny, activation, monkeypatch, unmeasured):
    config = Config(activation=activation, batch_size=16, epochs=2, lr=0.01)
    bare = unmeasured(config, tiny, CPU)
    monkeypatch.setattr(diagnostics, "moments", lambda *_: [0, 1, 3])
    measured = train_run(config, tiny, CPU)
    assert measured.iteration_loss.tobytes() == bare.iteration_loss.tobytes()
    assert measured.test_confidence.tobytes() == bare.test_confidence.tobytes()
    assert measured.confidence().tobytes() == bare.confidence().tobytes()
    kinds = {"relu": {"dead"}, "sigmoid": {"saturated"}, "gelu": set()}[activation]
    assert {"dead", "saturated"} & measured.measures.keys() == kinds
    assert measured.measure("update").tolist() == [0, 1, 3]
    assert "lag" not in bare.measures and not bare.layers


def test_every_array_is_as_its_measure_says(run):
    sizes = {axis: len(names) for axis, names in run.layers.items()}
    sizes |= {"answers": 50, "images": 120, "right": 2, "bins": len(CONFIDENCE_EDGES) - 1}
    sizes["moments"] = len(run.measure("update"))
    assert run.measures.keys() == MEASURES.keys() - {"saturated"}
    for name, array in run.measures.items():
        assert array.dtype == np.dtype(MEASURES[name].kind), name
        assert array.shape == tuple(sizes[axis] for axis in MEASURES[name].axes), name
        assert np.isfinite(array).all(), name
    assert run.layers["weights"][0] == "conv1" and run.layers["weights"][-1] == "fc"


def test_a_run_that_diverges_keeps_what_was_measured_before(tiny):
    run = train_run(Config(lr=1e30, epochs=3, batch_size=20), tiny, CPU)
    assert run.diverged and not len(run.predicted()) and np.isnan(run.accuracy("test"))
    assert run.measure("update").tolist()[0] == 0
    assert np.isfinite(run.measure("gradient_norm")[0]).all()


def test_numbers_are_kept_to_a_twentieth_of_a_percent(tiny):
    found = diagnosed(models.build(Config()), tiny)
    kept = found.arrays()["weight_norm"][0]
    exact = found.table["weight_norm"][0].numpy()
    assert np.allclose(kept, exact, rtol=2**-12) and (kept.view(np.uint32) & 0xFFF == 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_too_measuring_changes_nothing(small, unmeasured):
    cuda = torch.device("cuda")
    config = Config(batch_size=25, epochs=2, lr=0.001)
    measured, again = (train_run(config, small, cuda) for _ in range(2))
    bare = unmeasured(config, small, cuda)
    assert torture.same(measured, again)
    assert measured.iteration_loss.tobytes() == bare.iteration_loss.tobytes()
    cpu = train_run(config, small, CPU)
    assert np.allclose(measured.measure("weight_norm")[0], cpu.measure("weight_norm")[0], rtol=1e-3)
