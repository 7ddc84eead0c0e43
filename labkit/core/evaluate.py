"""What a trained network predicts, and how often it is right."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labkit.core.config import Config
from labkit.core.data import Data, Split
from labkit.core.layers import watching, weighted
from labkit.core.measures import (
    CONFIDENCE_EDGES,
    RECALIBRATED,
    RUNNING,
    STATISTICS,
    calibration_size,
    sample_size,
)

BatchNorm = nn.modules.batchnorm._BatchNorm
#: Images; they decide only the speed: on a CPU the maps of 1,000 no longer fit its caches, while a
#: GPU answers 2,000 at once in half the time.
BATCH, GPU_BATCH = 500, 2000


@dataclass(frozen=True)
class Predictions:
    """What the network said of a split's n images, as arrays `[n]` in the split's order.

    `labels` and `predicted` are classes (uint8); `confidence` is the softmax probability of the
    predicted class (float32, 0..1); `silent` is 1 where all inputs of the last linear layer are
    exactly zero, so that its bias alone answers (uint8); None if the last layer is no linear one.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    silent: np.ndarray | None

    def accuracy(self) -> float:
        """The share of right answers, 0..1."""
        return float((self.labels == self.predicted).mean())

    def confusion(self, classes: int) -> np.ndarray:
        """Counts, int64 `[classes, classes]`: row the true class, column the predicted one."""
        pairs = self.labels.astype(np.int64) * classes + self.predicted
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def by_class(self) -> np.ndarray:
        """`predicted` in the order of the true classes, and within a class in the split's."""
        return self.predicted[np.argsort(self.labels, kind="stable")]

    def confidences(self) -> np.ndarray:
        """How many wrong and how many right answers have a confidence in each of the bins of
        `measures.CONFIDENCE_EDGES`, int32 `[2, bins]`."""
        right = self.labels == self.predicted
        counts = [np.histogram(self.confidence[r], CONFIDENCE_EDGES)[0] for r in (~right, right)]
        return np.array(counts, np.int32)


#: The predictions for each split, with either kind of statistics: `measures.STATISTICS` → split →
#: predictions.
Answers = dict[str, dict[str, Predictions]]
_NONE = np.zeros(0, np.uint8)
#: Of a network whose weights are no longer numbers.
NO_ANSWERS: Answers = dict.fromkeys(
    STATISTICS,
    dict.fromkeys(("train", "test"), Predictions(_NONE, _NONE, _NONE.astype(np.float32), _NONE)),
)


def evaluate(model: nn.Module, data: Data, split: Split, normalization: str) -> Predictions:
    """Predictions of `model` for `split`, both on one device; leaves it in evaluation mode."""
    model.eval()
    best, silent, latest = [], [], []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
        latest[:] = inputs if isinstance(module, nn.Linear) else ()

    with watching(weighted(model), note), torch.no_grad():
        for images in split.images.split(GPU_BATCH if split.images.is_cuda else BATCH):
            best.append(model(data.prepare(images, normalization)).softmax(1).max(1))
            silent += map(all_zero, latest)  # what reached the last layer, if it is a linear one
    return Predictions(
        labels=split.labels.to(torch.uint8).cpu().numpy(),
        predicted=torch.cat([top.indices for top in best]).to(torch.uint8).cpu().numpy(),
        confidence=torch.cat([top.values for top in best]).float().cpu().numpy(),
        silent=torch.cat(silent).to(torch.uint8).cpu().numpy() if silent else None,
    )


def all_zero(features: Tensor) -> Tensor:
    """For which images all features `[n, ...]` are exactly zero, bool `[n]`."""
    return (features == 0).flatten(1).all(1)


def twin_of(model: nn.Module) -> nn.Module:
    """A copy on which to measure, so that the network that trains is never touched.

    Its normalisations take the mean and variance of each batch in place of running averages.
    """
    twin = copy.deepcopy(model)
    for norm in norms_of(twin):
        norm.momentum = 1.0
    return twin


def norms_of(model: nn.Module) -> list[nn.Module]:
    """The batch normalisations of a network that keep running averages."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    return [norm for norm in norms if norm.running_mean is not None]


@torch.no_grad()
def take_over(twin: nn.Module, model: nn.Module) -> None:
    """Give `twin` the weights that `model` has now, and what else it remembers, but for the
    statistics of its batch normalisations."""
    for mine, theirs in zip(_state(twin), _state(model), strict=True):
        mine.copy_(theirs)


def _state(model: nn.Module) -> list[Tensor]:
    statistics = {id(buffer) for norm in norms_of(model) for buffer in norm.buffers()}
    buffers = [buffer for buffer in model.buffers() if id(buffer) not in statistics]
    return [*model.parameters(), *buffers]


class Population:
    """Mean and variance of what reaches each batch normalisation of a twin, over several batches.

    Every batch is normalised by its own statistics, as in training; a population's mean is that of
    the batches' means, its variance the mean of their variances and the variance of their means
    (Wu and Johnson 2021, arXiv:2105.07576, section 3). `note` is to be called after each pass
    through a normalisation in training mode, see `layers.watching`.
    """

    def __init__(self, twin: nn.Module) -> None:
        self.seen: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = {
            norm: [] for norm in norms_of(twin)
        }

    def note(self, norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        """Take up the statistics of one batch."""
        images, values = len(inputs[0]), inputs[0].numel() // inputs[0].shape[1]
        biased = norm.running_var * ((values - 1) / values)  # what it keeps is the unbiased one
        self.seen[norm].append((images, norm.running_mean.clone(), biased))

    def statistics(self) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
        """Each normalisation that a batch passed, and its population's mean and variance,
        `[channels]`."""
        for norm, batches in self.seen.items():
            if not batches:
                continue
            images, means, variances = zip(*batches, strict=True)
            weights = torch.tensor(images, device=means[0].device)[:, None] / sum(images)
            means, variances = torch.stack(means), torch.stack(variances)
            mean = (weights * means).sum(0)
            yield norm, mean, (weights * (variances + (means - mean) ** 2)).sum(0)


def calibration(labels: Tensor) -> Tensor:
    """The numbers of the training images on which statistics are estimated: always the same ones,
    each class with its share, in an order in which every stretch has all classes."""
    size = calibration_size(len(labels))
    by_class = labels.cpu().argsort(stable=True)  # on the CPU: not every device sorts alike
    chosen = by_class[torch.arange(size) * len(labels) // size]
    batches = -(-size // BATCH)
    return torch.cat([chosen[start::batches] for start in range(batches)]).to(labels.device)


def recalibrate(twin: nn.Module, data: Data, normalization: str) -> None:
    """Estimate the statistics of all batch normalisations of `twin` anew, in place, as those of
    its weights: over the images of `calibration`, see `Population`."""
    images = data.train.images[calibration(data.train.labels)]
    norms, population = norms_of(twin), Population(twin)
    twin.eval()  # dropout and the like are off, as where it answers
    for norm in norms:
        norm.train()
    with watching(norms, population.note), torch.no_grad():
        for batch in images.chunk(-(-len(images) // BATCH)):
            twin(data.prepare(batch, normalization))
    for norm, mean, variance in population.statistics():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def predict(model: nn.Module, twin: nn.Module, data: Data, config: Config, whole: bool) -> Answers:
    """The predictions with either kind of statistics.

    Args:
        twin: of `model`, see `twin_of`; it is left with recalibrated statistics.
        whole: for both splits, as after the last epoch. Between epochs, to save time, the
            recalibrated ones are for the test images and a sample of the training images (see
            `measures.sample_size`), those by running averages for the test images alone.
    """
    splits = {"train": data.train, "test": data.test}
    running = splits if whole else {"test": data.test}
    if not whole:
        chosen = calibration(data.train.labels)[: sample_size(len(data.train))]
        splits["train"] = Split(data.train.images[chosen], data.train.labels[chosen])
    take_over(twin, model)
    recalibrate(twin, data, config.normalization)
    return {
        statistics: {
            split: evaluate(network, data, images, config.normalization)
            for split, images in asked.items()
        }
        for statistics, network, asked in ((RECALIBRATED, twin, splits), (RUNNING, model, running))
    }
