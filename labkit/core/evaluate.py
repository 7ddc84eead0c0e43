"""What a trained network predicts, and how often it is right."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from labkit.core.config import Config
from labkit.core.data import Data, Split
from labkit.core.measures import (
    CONFIDENCE_EDGES,
    RECALIBRATED,
    RUNNING,
    calibration_size,
    sample_size,
)

BatchNorm = nn.modules.batchnorm._BatchNorm
BATCH = 500  # images; decides only the speed: on a CPU the maps of 1,000 no longer fit its caches


@dataclass(frozen=True)
class Predictions:
    """What the network said of a split's n images, as arrays `[n]` in the split's order.

    `labels` and `predicted` are classes (uint8); `confidence` is the softmax probability of the
    predicted class (float32, 0..1); `silent` is 1 where all inputs of the last linear layer are
    exactly zero, so that its bias alone answers (uint8).
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    silent: np.ndarray

    def accuracy(self) -> float:
        """The share of right answers, 0..1."""
        return float((self.labels == self.predicted).mean())

    def confusion(self, classes: int = 10) -> np.ndarray:
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


#: Of a network whose weights are no longer numbers.
_NONE = np.zeros(0, np.uint8)
NO_ANSWERS = Predictions(_NONE, _NONE, np.zeros(0, np.float32), _NONE)


def evaluate(model: nn.Module, data: Data, split: Split, normalization: str) -> Predictions:
    """Predictions of `model` for `split`, both on one device.

    Leaves the model in evaluation mode.
    """
    model.eval()
    predicted, confidence, silent = [], [], []
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    hook = last.register_forward_pre_hook(
        lambda _, inputs: silent.append((inputs[0] == 0).all(1).to(torch.uint8))
    )
    try:
        with torch.inference_mode():
            for images in split.images.split(BATCH):
                top = model(data.prepare(images, normalization)).softmax(1).max(1)
                predicted.append(top.indices.to(torch.uint8))
                confidence.append(top.values)
    finally:
        hook.remove()
    return Predictions(
        labels=split.labels.to(torch.uint8).cpu().numpy(),
        predicted=torch.cat(predicted).cpu().numpy(),
        confidence=torch.cat(confidence).float().cpu().numpy(),
        silent=torch.cat(silent).cpu().numpy(),
    )


def twin_of(model: nn.Module) -> nn.Module:
    """A copy on which to measure, so that the network that trains is never touched.

    Its normalisations take the mean and variance of each batch in place of running averages.
    """
    twin = copy.deepcopy(model)
    for norm in norms_of(twin):
        norm.momentum = 1.0
    return twin


def norms_of(model: nn.Module) -> list[nn.Module]:
    """The batch normalisations of a network."""
    return [module for module in model.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def take_over(twin: nn.Module, model: nn.Module) -> None:
    """Give `twin` the weights that `model` has now."""
    for mine, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        mine.copy_(theirs)


class Population:
    """Mean and variance of what reaches each batch normalisation of a twin, over several batches.

    Every batch is normalised by its own statistics, as in training; a population's mean is that of
    the batches' means, its variance the mean of their variances and the variance of their means
    (Wu and Johnson 2021, arXiv:2105.07576, section 3). To be used as a context, in which the twin
    passes the batches, its normalisations in training mode.
    """

    def __init__(self, twin: nn.Module) -> None:
        self.norms = norms_of(twin)
        self.seen: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = {n: [] for n in self.norms}

    def __enter__(self) -> "Population":
        self.hooks = [norm.register_forward_hook(self._note) for norm in self.norms]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _note(self, norm: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        images, values = len(inputs[0]), inputs[0].numel() // inputs[0].shape[1]
        biased = norm.running_var * ((values - 1) / values)  # what it keeps is the unbiased one
        self.seen[norm].append((images, norm.running_mean.clone(), biased))

    def statistics(self) -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
        """Each normalisation with its population's mean and variance, `[channels]`."""
        for norm, batches in self.seen.items():
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
    twin.eval()  # dropout and the like are off, as where it answers
    for norm in norms_of(twin):
        norm.train()
    with Population(twin) as population, torch.no_grad():
        for batch in images.chunk(-(-len(images) // BATCH)):
            twin(data.prepare(batch, normalization))
    for norm, mean, variance in population.statistics():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def predict(
    model: nn.Module, twin: nn.Module, data: Data, config: Config, whole: bool
) -> dict[str, dict[str, Predictions]]:
    """The predictions for both splits, with either kind of statistics: `measures.STATISTICS` →
    split → predictions.

    Args:
        twin: of `model`, see `twin_of`; it is left with recalibrated statistics.
        whole: all training images, or as many as `measures.sample_size` says.
    """
    train = data.train
    if not whole:
        chosen = calibration(train.labels)[: sample_size(len(train))]
        train = replace(train, images=train.images[chosen], labels=train.labels[chosen])
    splits = {"train": train, "test": data.test}
    take_over(twin, model)
    recalibrate(twin, data, config.normalization)
    return {
        statistics: {
            split: evaluate(network, data, images, config.normalization)
            for split, images in splits.items()
        }
        for statistics, network in ((RECALIBRATED, twin), (RUNNING, model))
    }
