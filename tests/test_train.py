import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers import train_run
from sklearn.metrics import accuracy_score, confusion_matrix
from torch import nn

from labkit.core import model as models
from labkit.core.config import Config
from labkit.core.evaluate import evaluate
from labkit.core.measures import RUNNING
from labkit.core.train import fit, make_optimizer

CPU = torch.device("cpu")


def documented_loop(config, small):
    """The same training as PyTorch's tutorials write it: torchvision's model, a DataLoader,
    an optimizer without fusion."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    model.load_state_dict(models.build(config).state_dict())
    images = (small.train.images / 255 - small.mean[0]) / small.std[0]
    dataset = torch.utils.data.TensorDataset(images, small.train.labels)
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "foreach": False}
    optimizer = {
        "adam": lambda: torch.optim.Adam(model.parameters(), **options),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), **options),
        "sgd": lambda: torch.optim.SGD(model.parameters(), **options),
        "momentum": lambda: torch.optim.SGD(model.parameters(), momentum=0.9, **options),
    }[config.optimizer]()
    generator = torch.Generator().manual_seed(config.seed)
    model.train()
    for _ in range(config.epochs):
        order = torch.randperm(len(dataset), generator=generator).tolist()
        for x, y in torch.utils.data.DataLoader(dataset, config.batch_size, sampler=order):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "momentum"])
def test_losses_are_those_of_the_documented_loop(tiny, optimizer):
    settings = {"lr": 0.001, "weight_decay": 1e-3, "batch_size": 24, "seed": 5}
    config = Config(optimizer=optimizer, epochs=2, **settings)
    model = models.build(config)
    ours = [loss.item() for loss in fit(model, make_optimizer(model, config), tiny, config)]
    assert len(ours) == 4  # two epochs of 24 and 16 images
    theirs = list(documented_loop(config, tiny))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours == pytest.approx(theirs, rel=1e-3)  # rounding grows from step to step


def test_optimizers_are_the_named_ones():
    model = nn.Linear(2, 2)
    kinds = {name: make_optimizer(model, Config(optimizer=name)) for name in ("adam", "momentum")}
    assert isinstance(kinds["adam"], torch.optim.Adam)
    assert kinds["adam"].defaults["lr"] == 0.01
    assert kinds["momentum"].defaults["momentum"] == 0.9


@pytest.fixture(scope="module")
def run(small):
    return train_run(Config(epochs=2), small, CPU)


def test_one_seed_gives_one_result_to_the_bit(run, small):
    again, other = (train_run(Config(epochs=2, seed=seed), small, CPU) for seed in (0, 8))
    assert run.iteration_loss.tobytes() == again.iteration_loss.tobytes()
    assert run.test_confidence.tobytes() == again.test_confidence.tobytes()
    assert run.iteration_loss.tobytes() != other.iteration_loss.tobytes()


def test_the_record_of_a_run_adds_up(run):
    assert run.iteration_loss.shape == (2, 2)  # 120 images: 64 and the 56 that are left
    assert list(run.history["epoch"]) == [0, 1]
    assert np.allclose(run.history["loss"], run.iteration_loss.astype(np.float64).mean(1))
    assert run.confusion["train"].sum() == 120 and run.confusion["test"].sum() == 50
    last = run.history.iloc[-1]
    for split in ("train", "test"):
        assert last[f"{split}_accuracy"] == pytest.approx(run.accuracy(split, RUNNING))
        assert last[f"{split}_accuracy_recalibrated"] == pytest.approx(run.accuracy(split))
    assert run.accuracy("test", RUNNING) == accuracy_score(run.test_labels, run.test_predicted)


def test_accuracy_each_epoch_changes_no_number_and_can_be_left_out(run, small):
    without = train_run(Config(epochs=2, epoch_accuracy=False), small, CPU)
    assert run.iteration_loss.tobytes() == without.iteration_loss.tobytes()
    assert np.array_equal(run.test_predicted, without.test_predicted)
    assert np.isnan(without.history["test_accuracy"].iloc[0])
    assert without.history["test_accuracy"].iloc[1] == run.history["test_accuracy"].iloc[1]


def test_evaluate_counts_like_scikit_learn(small):
    model, config = models.build(Config()), Config(epochs=1)
    for _ in fit(model, make_optimizer(model, config), small, config):
        pass
    answers = evaluate(model, small, small.train, "mean-std")
    logits = model(small.prepare(small.train.images, "mean-std"))
    share, predicted = logits.softmax(1).max(1)
    assert answers.predicted.tolist() == predicted.tolist()
    assert np.allclose(answers.confidence, share.detach(), atol=1e-5)
    assert answers.labels.tolist() == small.train.labels.tolist()
    expected = confusion_matrix(small.train.labels, predicted, labels=range(10))
    assert np.array_equal(answers.confusion(10), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_gpu_sees_the_same_batches_and_repeats_itself(small):
    config = Config(epochs=1)
    cpu, first, again = (train_run(config, small, torch.device(d)) for d in ("cpu", "cuda", "cuda"))
    assert first.iteration_loss[0, 0] == pytest.approx(cpu.iteration_loss[0, 0], rel=1e-3)
    assert first.iteration_loss.tobytes() == again.iteration_loss.tobytes()


def test_a_run_that_diverges_is_an_outcome_with_its_place(small, capsys):
    config = Config(lr=1e30, epochs=3)
    run = train_run(config, small, CPU, log="epoch")
    epoch, iteration = run.diverged
    assert np.isfinite(run.iteration_loss[0, 0])
    losses = run.iteration_loss.ravel()
    place = epoch * 2 + iteration
    assert np.isfinite(losses[:place]).all() and np.isnan(losses[place:]).all()
    assert len(run.history) == 3 and np.isnan(run.history["loss"].iloc[-1])
    assert set(run.history.dtypes.drop("epoch")) == {np.dtype(float)}
    assert np.isnan(run.accuracy("test")) and len(run.test_predicted) == 0
    assert "diverged" in capsys.readouterr().out
