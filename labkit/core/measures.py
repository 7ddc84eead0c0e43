"""What a record holds beyond losses and the answers with running averages, in one place.

Records from before a measure was taken do not have it: a dash in tables, a gap in figures.
"""

from dataclasses import dataclass

import numpy as np

#: With which statistics a network's batch normalisations answer: with those estimated anew for its
#: final weights (`evaluate.recalibrate`), or with the running averages that `model.eval()` takes.
RECALIBRATED, RUNNING = "recalibrated", "running"
STATISTICS = (RECALIBRATED, RUNNING)
NAMES = {RECALIBRATED: "recalibrated", RUNNING: "by running averages"}  # for a reader

#: The bins of `train_confidence`: from 0 on, four for each factor of ten in 1 − confidence.
CONFIDENCE_EDGES = np.array([*(1 - 10 ** (-np.arange(29) / 4)), 1.0])


@dataclass(frozen=True)
class Measure:
    """An array of a record.

    Attributes:
        kind: of its numbers, as numpy writes it.
        axes: `epochs`, `iterations`, `answers` (to the test images), `images` (of training, by
            class, and within a class in the dataset's order), `right` (wrong, right), `bins`,
            `moments` (see `update`), `weights`, `activations` and `normalizations` (the layers that
            `Run.layers` names).
        meaning: what it is, with its unit and, if it has one, its source.
    """

    kind: str
    axes: tuple[str, ...]
    meaning: str


_ANSWERS = {
    "predicted": Measure("|u1", ("answers",), "the class that each test image is taken for"),
    "confidence": Measure("<f4", ("answers",), "its softmax probability, 0..1"),
    "silent": Measure("|u1", ("answers",), "1 where all inputs of the last layer are exactly zero"),
    "train_predicted": Measure("|u1", ("images",), "the class that each image is taken for"),
    "train_confidence": Measure(
        "<i4", ("right", "bins"), "how many training answers have a confidence in each bin"
    ),
}
_OLDER = ("running_predicted", "running_confidence")  # as old as records: `Run.test_predicted`
#: Measured at the moments: the layers that each is measured of, if any, and its meaning.
_MOMENTS = {
    "gradient_norm": ("weights", "Euclidean norm of the probe's gradient, nats per unit weight"),
    "weight_norm": ("weights", "Euclidean norm of the weights that can learn"),
    "relative_update": (
        "weights",
        "norm of the change that the next update makes, divided by the weight norm: where a batch "
        "normalisation follows, only the weights' direction acts, so this is the step that counts "
        "(van Laarhoven 2017, arXiv:1706.05350)",
    ),
    "dead": (
        "activations",
        "share of a ReLU layer's channels that are zero everywhere on the probe, 0..1",
    ),
    "saturated": (
        "activations",
        "share of a sigmoid or tanh layer's outputs on the probe at which the derivative is below "
        "5 % of its maximum, 0..1",
    ),
    "silenced": ("", "share of the probe's images that leave all last features zero, 0..1"),
    "lag": (
        "normalizations",
        "by how much a normalisation's output differs when it uses its running averages instead of "
        "the probe's own mean μ and deviation σ: root mean square over channels, for normal "
        "inputs, √(((μ − μ_run)/σ_run)² + (σ/σ_run − 1)²); some 0.1 is the probe's own scatter",
    ),
    "gradient_square": (
        "",
        "|G|², squared norm of the true gradient: unbiased estimate from batches of 64 and 256 "
        "(McCandlish et al. 2018, arXiv:1812.06162, appendix A.1); single values may be negative",
    ),
    "gradient_variance": (
        "",
        "tr Σ, the trace of the covariance of one image's gradient, unbiased from the same; the "
        "simple noise scale, in images, is mean tr Σ / mean |G|²",
    ),
}
MEASURES = {
    f"{statistics}_{name}": measure
    for statistics in STATISTICS
    for name, measure in _ANSWERS.items()
    if f"{statistics}_{name}" not in _OLDER
}
MEASURES["update"] = Measure("<i4", ("moments",), "how many updates lie before the moment")
MEASURES |= {
    name: Measure("<f4", ("moments", layers) if layers else ("moments",), meaning)
    for name, (layers, meaning) in _MOMENTS.items()
}


def kept_as(name: str, statistics: str) -> str:
    """What a record calls `name` with these statistics: running averages came first, and are
    called by the name alone."""
    return name if statistics == RUNNING else f"{name}_{statistics}"


def calibration_size(images: int) -> int:
    """On how many of the training images the statistics are estimated anew: 10,000 of 60,000."""
    return max(images // 6, min(images, 1000))


def sample_size(images: int) -> int:
    """On how many of these the training accuracy between epochs is measured, recalibrated: on a
    quarter, since evaluation is to take at most 15 % of a run's time. After the last epoch it is on
    all training images."""
    return calibration_size(images) // 4
