"""How fast labkit trains, beside what else one would write or take: `make bench`.

The contenders train the same ResNet-18 on the same images from the same weights, with the same
batches in the same order and the same optimizer, each in a process of its own, one after another,
round after round. Before anything is timed their first losses are compared. Documented means as
the documentation shows it; tuned means in its fastest form that keeps the numbers. Let nothing
else run meanwhile.
"""

import contextlib
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from labkit.core.config import Config
from labkit.core.data import Data, Split, load
from labkit.core.device import find_device

ITSELF = "labkit"  # what the others are compared with
TOLERANCE = 1e-5  # relative, between first losses: sums in another order


@dataclass
class Task:
    """What is to be trained, and the times and the first loss that come of it."""

    config: Config
    device: torch.device
    only_first: bool  # end the process after the first step
    runs: int  # for the contenders that train several
    stamps: list[float] = field(default_factory=list)
    first_loss: float | None = None
    spent: dict[str, float] = field(default_factory=dict)  # of a whole run

    @property
    def data(self) -> Data:
        return load(self.config.dataset)

    @property
    def iterations(self) -> int:
        """Of an epoch."""
        return -(-len(self.data.train) // self.config.batch_size)

    def stamp(self, loss: Tensor) -> None:
        """To be called after every step, with its loss."""
        if self.first_loss is None:
            self.first_loss = loss.item()
            if self.only_first:
                print("\n" + json.dumps({"first_loss": self.first_loss}), flush=True)
                os._exit(0)
        if self.device.type == "cuda" and (len(self.stamps) + 1) % self.iterations == 0:
            torch.cuda.synchronize(self.device)
        self.stamps.append(time.perf_counter())

    def network(self) -> nn.Module:
        """torchvision's ResNet-18 for grey images, with the weights that labkit starts from."""
        import torchvision

        from labkit.core.model import build

        network = torchvision.models.resnet18(num_classes=10)
        network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        network.load_state_dict(build(self.config).state_dict())
        return network

    def accuracies(self, predicted: Tensor, split: str = "test") -> list[float]:
        """The share of right answers for each class."""
        labels = getattr(self.data, split).labels
        right = (predicted.cpu() == labels).double()
        return [right[labels == label].mean().item() for label in range(10)]


# What several contenders need: images as the documentation feeds them, and in memory.


class Images(Dataset):
    """A split as torchvision's datasets give it: a PIL image, transformed, and its class."""

    def __init__(self, split: Split, transform: Callable[[Any], Tensor]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self.split.images[index, 0].numpy(), mode="L")
        return self.transform(image), int(self.split.labels[index])


class Order(Sampler):
    """The order that labkit takes the images in, for a DataLoader."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.generator = images, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.images

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.images, generator=self.generator).tolist()


class InMemory:
    """Batches of a split that lies on the device, normalised beforehand; no loader."""

    def __init__(self, task: Task, split: str, order: Order | None = None) -> None:
        part = getattr(task.data, split).to(task.device)
        self.images = task.data.prepare(part.images, task.config.normalization)
        self.labels, self.order = part.labels, order
        self.size = task.config.batch_size if order else 1000

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.order:
            yield from zip(self.images.split(self.size), self.labels.split(self.size), strict=True)
            return
        order = torch.randperm(self.order.images, generator=self.order.generator)
        for batch in order.to(self.labels.device).split(self.size):
            yield self.images[batch], self.labels[batch]


def images_of(task: Task, split: str) -> Images:
    from torchvision import transforms

    normalize = transforms.Normalize(task.data.mean, task.data.std)
    return Images(getattr(task.data, split), transforms.Compose([transforms.ToTensor(), normalize]))


def loader(task: Task, split: str, order: Order | None = None) -> DataLoader:
    """As in PyTorch's MNIST example, workers and pinned memory on a GPU included."""
    on_gpu = {"num_workers": 1, "pin_memory": True} if task.device.type == "cuda" else {}
    size = task.config.batch_size if order else 1000
    return DataLoader(images_of(task, split), batch_size=size, sampler=order, **on_gpu)


def order_of(task: Task) -> Order:
    return Order(len(task.data.train), task.config.seed)


# The contenders. Each trains, evaluates both splits, and returns the test accuracy of each class.


def loop(
    task: Task,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[..., Any],
    guard: Callable[[], Any],
    trained: nn.Module | None = None,
) -> list[float]:
    """The training loop of PyTorch's own examples; `trained` is what it runs, if not `network`."""
    trained = network if trained is None else trained
    training = batches(task, "train", order_of(task))
    for _ in range(task.config.epochs):
        trained.train()
        for images, labels in training:
            images, labels = images.to(task.device), labels.to(task.device)
            optimizer.zero_grad()
            loss = F.cross_entropy(trained(images), labels)
            loss.backward()
            optimizer.step()
            task.stamp(loss)
    network.eval()
    with guard():
        answers = {
            split: torch.cat(
                [network(x.to(task.device)).argmax(1) for x, _ in batches(task, split)]
            )
            for split in ("train", "test")
        }
    return task.accuracies(answers["test"])


def documented_loop(task: Task) -> list[float]:
    network = task.network().to(task.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=task.config.lr)
    return loop(task, network, optimizer, loader, torch.no_grad)


def tuned_loop(task: Task) -> list[float]:
    network = task.network().to(task.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=task.config.lr, fused=True)
    return loop(task, network, optimizer, InMemory, torch.inference_mode)


def compiled_loop(task: Task) -> list[float]:
    network = task.network().to(task.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=task.config.lr, fused=True)
    mode = "reduce-overhead" if task.device.type == "cuda" else "default"
    compiled = torch.compile(network, mode=mode, dynamic=False)
    return loop(task, network, optimizer, InMemory, torch.no_grad, compiled)


def lightning(task: Task, batches: Callable[..., Any], fused: bool, **options: Any) -> list[float]:
    from lightning.pytorch import LightningModule, Trainer

    class Classifier(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = task.network()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            images, labels = batch
            loss = F.cross_entropy(self.network(images), labels)
            if not fused:
                self.log("train_loss", loss)
            return loss

        def on_train_batch_end(self, outputs: dict[str, Tensor], *_: object) -> None:
            task.stamp(outputs["loss"])

        def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return self.network(batch[0]).argmax(1)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=task.config.lr, fused=fused or None)

    accelerator = "gpu" if task.device.type == "cuda" else "cpu"
    epochs = task.config.epochs
    trainer = Trainer(max_epochs=epochs, accelerator=accelerator, devices=1, **options)
    classifier = Classifier()
    trainer.fit(classifier, batches(task, "train", order_of(task)))
    answers = {
        split: torch.cat(trainer.predict(classifier, batches(task, split)))
        for split in ("train", "test")
    }
    return task.accuracies(answers["test"])


def documented_lightning(task: Task) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        return lightning(task, loader, fused=False, default_root_dir=folder)


def tuned_lightning(task: Task) -> list[float]:
    return lightning(task, InMemory, fused=True, barebones=True)


def skorch(task: Task, **options: Any) -> list[float]:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback

    class Stamps(Callback):
        def on_batch_end(self, net: object, training: bool = False, **step: Any) -> None:
            if training:
                task.stamp(step["loss"])

    net = NeuralNetClassifier(
        task.network(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=task.config.lr,
        max_epochs=task.config.epochs,
        batch_size=task.config.batch_size,
        iterator_valid__batch_size=1000,
        train_split=None,  # by default a fifth of the images would not be trained on
        device=str(task.device),
        callbacks=[Stamps],
        **options,
    )
    images = {split: images_of(task, split) for split in ("train", "test")}
    net.fit(images["train"], y=None)
    answers = {split: net.predict(images[split]) for split in images}
    return task.accuracies(torch.from_numpy(answers["test"]))


def documented_skorch(task: Task) -> list[float]:
    return skorch(task, iterator_train__sampler=order_of(task))


def tuned_skorch(task: Task) -> list[float]:
    def answering(dataset: Images, **_: object) -> InMemory:
        return InMemory(task, "train" if len(dataset) == len(task.data.train) else "test")

    return skorch(
        task,
        iterator_train=lambda *_, **__: InMemory(task, "train", order_of(task)),
        iterator_valid=answering,
        optimizer__fused=True,
        callbacks__print_log=None,
        callbacks__train_loss=None,
    )


def plain_labkit(task: Task) -> list[float]:
    """labkit's readable loop, with nothing around it."""
    from labkit.core.evaluate import predict, twin_of
    from labkit.core.model import build
    from labkit.core.train import fit, make_optimizer

    data = task.data.to(task.device)
    network = build(task.config).to(task.device)
    optimizer = make_optimizer(network, task.config)
    for loss in fit(network, optimizer, data, task.config):
        task.stamp(loss)
    answers = predict(network, twin_of(network), data, task.config, whole=True)
    return task.accuracies(torch.from_numpy(answers["recalibrated"]["test"].predicted))


def labkit_by_hand(task: Task) -> list[float]:
    """The step that labkit takes on a CPU, written out: what its record keeping adds shows."""
    from labkit.core.evaluate import predict, twin_of
    from labkit.core.model import build
    from labkit.core.train import make_optimizer
    from labkit.lab.slim import slim

    torch.set_flush_denormal(True)
    data = task.data.to(task.device)
    network = slim(build(task.config).to(task.device))
    optimizer = make_optimizer(network, task.config)
    network.train()
    shuffle = torch.Generator().manual_seed(task.config.seed)
    for _ in range(task.config.epochs):
        order = torch.randperm(len(data.train), generator=shuffle).to(task.device)
        for batch in order.split(task.config.batch_size):
            images = data.prepare(data.train.images[batch], task.config.normalization)
            loss = F.cross_entropy(network(images), data.train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            task.stamp(loss)
    answers = predict(network, twin_of(network), data, task.config, whole=True)
    return task.accuracies(torch.from_numpy(answers["recalibrated"]["test"].predicted))


def labkit_itself(task: Task) -> list[float]:
    """As a user calls it: records, checkpoints and all."""
    from labkit.lab import experiment, state
    from labkit.store.folder import Store

    original = state.fit

    def stamped(*arguments: Any) -> Iterator[Tensor]:
        for loss in original(*arguments):
            task.stamp(loss)
            yield loss

    state.fit = stamped
    with tempfile.TemporaryDirectory() as folder:
        run = experiment.run(
            task.config, device=str(task.device), log="none", store=Store(Path(folder), None)
        )
    counts = run.confusion["test"]
    return (counts.diagonal() / counts.sum(1)).tolist()


def whole_run(task: Task) -> list[float]:
    """As a user calls it, with the accuracies after every epoch; what each part took."""
    from labkit.lab import experiment
    from labkit.store.folder import Store

    config = task.config.replace(epoch_accuracy=True)
    with tempfile.TemporaryDirectory() as folder:
        options = {"device": str(task.device), "log": "none", "store": Store(Path(folder), None)}
        run = experiment.run(config, **options)
    task.spent = {k: v for k, v in run.provenance.items() if k.endswith("seconds")}
    return task.accuracies(torch.from_numpy(run.test_predicted))


def several(task: Task, at_once: bool) -> list[float]:
    """As many seeds as the task asks for, long enough to be worth a process each."""
    from labkit.lab import experiment
    from labkit.store.folder import Store

    config = task.config.replace(epochs=5)
    with tempfile.TemporaryDirectory() as folder:
        options = {"device": str(task.device), "log": "none", "store": Store(Path(folder), None)}
        if at_once:
            runs = experiment.run_all({"": config}, seeds=task.runs, **options)[""]
        else:
            runs = [experiment.run(config.replace(seed=s), **options) for s in range(task.runs)]
    counts = runs[0].confusion["test"]
    return (counts.diagonal() / counts.sum(1)).tolist()


def several_at_once(task: Task) -> list[float]:
    return several(task, at_once=True)


def several_in_turn(task: Task) -> list[float]:
    return several(task, at_once=False)


IN_TURN, AT_ONCE = "labkit, several in turn", "labkit, several at once"
WHOLE, EARLIER = "labkit, a whole run", "an earlier labkit, a whole run"
CONTENDERS: dict[str, Callable[[Task], list[float]]] = {
    "documented loop": documented_loop,
    "Lightning, documented": documented_lightning,
    "skorch, documented": documented_skorch,
    "Lightning, tuned": tuned_lightning,
    "skorch, tuned": tuned_skorch,
    "tuned loop": tuned_loop,
    "tuned loop, compiled": compiled_loop,
    "labkit's plain loop": plain_labkit,
    "labkit's step by hand": labkit_by_hand,
    ITSELF: labkit_itself,
    WHOLE: whole_run,
    EARLIER: whole_run,  # in a process that imports it
    IN_TURN: several_in_turn,
    AT_ONCE: several_at_once,
}


def measured(name: str, task: Task) -> dict[str, Any]:
    """Train as `name` does; times in seconds, memory in bytes."""
    accuracies = CONTENDERS[name](task)
    result: dict[str, Any] = {"first_loss": task.first_loss, "accuracy": float(np.mean(accuracies))}
    result |= task.spent
    if task.stamps:
        on_gpu = task.device.type == "cuda"
        # The last epoch: what is compiled or captured for the first is behind.
        last = np.array(task.stamps[-task.iterations - 1 :])
        result["epoch"] = last[-1] - last[0]
        # On a GPU a step is done later than its stamp says; all of an epoch together are.
        result["step"] = result["epoch"] / task.iterations if on_gpu else np.median(np.diff(last))
        unit = 1 if sys.platform == "darwin" else 1024
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if on_gpu:
            result["gpu_memory"] = torch.cuda.max_memory_allocated(task.device)
    return result


def in_process(name: str, *arguments: str, labkit: Path | None = None) -> dict[str, Any]:
    """`measured` in a new process, with `cold`: its seconds from start to end.

    Args:
        labkit: the checkout whose labkit the process imports, if another than this one.
    """
    command = [sys.executable, __file__, "--contender", name, *arguments]
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile("w+") as errors:
        empty = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}  # nothing compiled beforehand
        empty |= {"PYTHONPATH": str(labkit)} if labkit else {}
        start = time.perf_counter()
        done = subprocess.run(command, env=empty, stdout=subprocess.PIPE, stderr=errors, text=True)
        cold = time.perf_counter() - start
        if done.returncode:
            errors.seek(0)
            raise click.ClickException(f"{name} failed:\n{errors.read()[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"contender": name, "cold": cold}


def arithmetic(config: Config) -> int:
    """Floating-point operations of a step: a multiplication and an addition wherever a tap meets a
    pixel (not the padding), once forward and twice backward."""
    from labkit.core.layers import probe
    from labkit.core.model import build

    total = 0
    for _, module, before, after in probe(build(config), (1, 28, 28)):
        if isinstance(module, nn.Conv2d):
            met = module.in_channels * module.out_channels
            for axis, pixels in enumerate(before[1:]):
                stride, padding = module.stride[axis], module.padding[axis]
                first = range(-padding, after[1 + axis] * stride - padding, stride)  # under tap 0
                taps = range(module.kernel_size[axis])
                met *= sum(0 <= pixel + tap < pixels for pixel in first for tap in taps)
            total += met
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()
    return 2 * 3 * total * config.batch_size


def share(task: Task, rounds: int = 20, size: int = 2048) -> str:
    """How near labkit's step comes to the processor's own matrix product, both in this process and
    in turn: the share of its floating-point operations a second that are live arithmetic."""
    from labkit.core.model import build
    from labkit.core.train import make_optimizer
    from labkit.lab import graphs
    from labkit.lab import slim as slimming

    def seconds(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        return time.perf_counter() - start

    config, data = task.config.replace(epochs=rounds + 3), task.data.to(task.device)
    network = slimming.slim(build(config).to(task.device))
    steps = graphs.fit(network, make_optimizer(network, config), data, config)
    left, right = torch.randn(2, size, size, device=task.device)
    with graphs.flushed_denormals(task.device):  # as in a training
        for _ in range(3):  # before them, libraries make ready
            next(steps), seconds(lambda: left @ right)
        pairs = [
            (seconds(lambda: next(steps)), seconds(lambda: left @ right)) for _ in range(rounds)
        ]
    step, product = np.median(pairs, axis=0)
    live, limit = arithmetic(config) / step / 1e9, 2 * size**3 / product / 1e9
    return (
        f"A step does {arithmetic(config) / 1e9:.2f} GFLOP of live arithmetic, {live:.0f} GFLOP/s: "
        f"{live / limit:.0%} of the {limit:.0f} of a product of {size}×{size} matrices."
    )


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path | None]:
    """A folder with the files of a commit of this repository; None, and a line, if it has none."""
    command = ["git", "-C", str(Path(__file__).parents[2]), "archive", "--format=tar", commit]
    packed = subprocess.run(command, capture_output=True)
    if packed.returncode:
        click.echo(f"no commit {commit!r} to compare a whole run with")
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def shares_of_a_run(found: pd.DataFrame, against: str) -> Iterator[str]:
    """What evaluation and diagnostics take of a whole run, here and in the records that ship, and
    its seconds beside those of an earlier labkit."""
    from labkit.core.config import Config, scale_name
    from labkit.store.folder import SHIPPED

    here = found[found["contender"] == WHOLE]
    parts = ("evaluation_seconds", "diagnostics_seconds")
    if len(here):
        shares = [(here[part] / here["seconds"]).median() for part in parts]
        yield f"Of a whole run evaluation takes {shares[0]:.1%} and diagnostics {shares[1]:.1%}."
    if len(here) and (found["contender"] == EARLIER).any():
        pairs = ratios(found, "seconds", WHOLE)[EARLIER]
        yield (
            f"A whole run takes {here['seconds'].median():.1f} s, with labkit at {against} "
            f"{pairs.median():.3f} times that ({pairs.min():.2f} to {pairs.max():.2f})."
        )
    records = [json.loads(path.read_text()) for path in SHIPPED.glob("*.json")]
    kept = [
        [record["provenance"][part] / record["provenance"]["seconds"] for part in parts]
        for record in records
        if parts[0] in record["provenance"] and scale_name(Config(**record["config"])) == "paper"
    ]
    if kept:
        shares = np.median(kept, axis=0)
        yield (
            f"In the {len(kept)} records of the paper scale that say it, evaluation took "
            f"{shares[0]:.1%} and diagnostics {shares[1]:.1%} (medians)."
        )


def refuse_unequal(results: list[dict[str, Any]]) -> None:
    """Refuse to compare trainings that are not the same.

    Raises:
        click.ClickException: the first losses differ.
    """
    losses = {r["contender"]: r["first_loss"] for r in results}
    if max(losses.values()) - min(losses.values()) > TOLERANCE * min(losses.values()):
        raise click.ClickException(f"the first losses differ: {losses}")


def ratios(rounds: pd.DataFrame, quantity: str, to: str = ITSELF) -> pd.DataFrame:
    """How many times as much as `to` each contender takes, in pairs of the same round.

    Args:
        rounds: one row for each `round` and `contender`.
    """
    wide = rounds.pivot(index="round", columns="contender", values=quantity)
    return wide.div(wide[to], axis=0)


def table(rounds: pd.DataFrame) -> pd.DataFrame:
    """A row for each contender: median and minimum over the rounds, the median of the ratios in
    pairs (and from which to which), memory, and the accuracy that came of it."""
    by = rounds.groupby("contender", sort=False)
    columns: dict[str, pd.Series] = {}
    for quantity, unit, scale in (("step", "ms", 1e3), ("epoch", "s", 1), ("cold", "s", 1)):
        pairs = ratios(rounds, quantity)
        columns[f"{quantity}, median, {unit}"] = (by[quantity].median() * scale).round(2)
        columns[f"{quantity}, min, {unit}"] = (by[quantity].min() * scale).round(2)
        columns[f"{quantity}, ratio"] = pairs.median().round(3)
        columns[f"{quantity}, ratios"] = (
            pairs.min().map("{:.2f}".format) + "–" + pairs.max().map("{:.2f}".format)
        ).where(pairs.min().notna(), "")
    for memory in by.obj.columns.intersection(["memory", "gpu_memory"]):
        columns[f"{memory}, MB"] = (by[memory].max() / 1e6).round()
    columns["accuracy, mean"] = by["accuracy"].mean().round(4)
    return pd.DataFrame(columns).reindex(list(by.groups))


def figure(rounds: pd.DataFrame, about: str) -> Any:
    """Every round as a point, the median as a bar, for step, epoch and cold start."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rounds = rounds[rounds["step"].notna()]
    names = list(dict.fromkeys(rounds["contender"]))[::-1]
    panels = {
        "step": ("one step, ms", 1e3),
        "epoch": ("one epoch, s", 1),
        "cold": ("from nothing to per-class accuracy, s", 1),
    }
    fig, axes = plt.subplots(1, 3, figsize=(12, 0.42 * len(names) + 1.6), sharey=True)
    for ax, (quantity, (label, scale)) in zip(axes, panels.items(), strict=True):
        pairs = ratios(rounds, quantity).median()
        for place, name in enumerate(names):
            values = rounds.loc[rounds["contender"] == name, quantity] * scale
            color = "tab:orange" if name == ITSELF else "tab:blue"
            ax.barh(place, values.median(), height=0.62, color=color, alpha=0.35)
            ax.plot(values, [place] * len(values), "o", ms=3.5, color=color, alpha=0.8)
            text = f"{values.median():.3g}" + (f"  ×{pairs[name]:.2f}" if name != ITSELF else "")
            ax.annotate(
                text, (values.max(), place), (6, 0), textcoords="offset points", va="center"
            )
        ax.set(xlabel=label, xlim=(0, rounds[quantity].max() * scale * 1.45))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(names)), names)
    fig.suptitle(
        f"{about}. Bar: median, dots: rounds; ×: as a multiple of labkit's, in pairs.",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    fig.tight_layout()
    return fig


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=64, show_default=True)
@click.option("--dataset", default="mnist-5k", show_default=True)
@click.option("--epochs", default=2, show_default=True, type=click.IntRange(2))
@click.option("--device", default="auto", show_default=True)
@click.option("--runs", type=int, help="How many where several train. [default: cores; GPU: 25]")
@click.option("--only", multiple=True, type=click.Choice(list(CONTENDERS)), help="These alone.")
@click.option("--out", default="report", show_default=True, type=click.Path(path_type=Path))
@click.option("--against", default="origin/main", show_default=True, help="An earlier commit.")
@click.option("--contender", hidden=True)
@click.option("--only-first", is_flag=True, hidden=True)
def main(
    rounds: int,
    batch_size: int,
    dataset: str,
    epochs: int,
    device: str,
    runs: int | None,
    only: tuple[str, ...],
    out: Path,
    against: str,
    contender: str | None,
    only_first: bool,
) -> None:
    where = find_device(device)
    config = Config(dataset=dataset, batch_size=batch_size, epochs=epochs, epoch_accuracy=False)
    runs = runs or (25 if where.type == "cuda" else torch.get_num_threads())
    if contender:
        result = measured(contender, Task(config, where, only_first, runs))
        print("\n" + json.dumps(result), flush=True)
        return

    def one(name: str, *more: str, labkit: Path | None = None) -> dict[str, Any]:
        arguments = {
            "--dataset": dataset, "--epochs": epochs, "--batch-size": batch_size,
            "--device": where, "--runs": runs,
        }  # fmt: skip
        given = map(str, itertools.chain(*arguments.items()))
        return in_process(name, *given, *more, labkit=labkit)

    names = [name for name in CONTENDERS if not only or name in (*only, ITSELF)]
    alike = [name for name in names if name not in (IN_TURN, AT_ONCE, WHOLE, EARLIER)]
    refuse_unequal([one(name, "--only-first") for name in alike])
    results = []
    with checkout(against) if EARLIER in names else contextlib.nullcontext() as earlier:
        for number, name in itertools.product(range(rounds), names):
            if name == EARLIER and not earlier:
                continue
            result = one(name, labkit=earlier if name == EARLIER else None) | {"round": number}
            results.append(result)
            shown = ("step", "epoch", "seconds", "cold")
            times = {k: round(result[k], 4) for k in shown if k in result}
            click.echo(f"round {number}: {name}: {times}")
    found = pd.DataFrame(results)
    processor = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    about = (
        f"ResNet-18, {dataset}, batch {batch_size}, Adam; {processor}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; {rounds} rounds"
    )
    shown = table(found)
    out.mkdir(parents=True, exist_ok=True)
    shown.to_csv(out / "bench.csv")
    figure(found, about).savefig(out / "bench.png", dpi=150)
    click.echo(f"\n{about}\n{shown.T.to_string()}")
    click.echo(f"\n{share(Task(config, where, only_first=False, runs=runs))}")
    for sentence in shares_of_a_run(found, against) if WHOLE in names else ():
        click.echo(f"\n{sentence}")
    if {IN_TURN, AT_ONCE} <= set(names):
        pairs = ratios(found, "cold", AT_ONCE)[IN_TURN]
        click.echo(
            f"\n{runs} runs of five epochs in turn take {pairs.median():.2f} times as long as at "
            f"once ({pairs.min():.2f} to {pairs.max():.2f})."
        )
    click.echo(f"\n{out / 'bench.csv'}, {out / 'bench.png'}")


if __name__ == "__main__":
    main()
