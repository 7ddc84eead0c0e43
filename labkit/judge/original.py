"""The original report's numbers, as data with the section that they stand in.

The original is a handwritten lab report ("实验报告二", lab report two) on ResNet-18 for MNIST. Its
settings: full MNIST, ten epochs; what a section does not name is as in section 1.2.
"""

from dataclasses import dataclass

from labkit.core.config import Config

#: Images of each digit, 0 to 9, in the two splits of MNIST (LeCun et al., the files themselves).
CLASS_COUNTS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}


@dataclass(frozen=True)
class AccuracyTable:
    """A printed table: accuracy of each digit in percent, and the total as counts."""

    percent: tuple[float, ...]
    correct: int
    total: int

    @property
    def total_percent(self) -> float:
        """The total accuracy in percent."""
        return 100 * self.correct / self.total


@dataclass(frozen=True)
class Section:
    """One of the original's five trainings: its settings, loss curve and accuracy tables.

    `epoch_loss` is the printed loss of epochs 0 to 9; the original reports accuracies (`train`,
    `test`) for three of its five trainings.
    """

    number: str
    name: str
    activation: str
    lr: float
    batch_size: int
    epoch_loss: tuple[float, ...]
    train: AccuracyTable | None = None
    test: AccuracyTable | None = None


@dataclass(frozen=True)
class Excerpt:
    """A stretch of the printed iteration log: the losses of one epoch from `first` on."""

    number: str
    epoch: int
    first: int
    losses: tuple[float, ...]


# fmt: off
SECTIONS = (
    Section(
        number="1",
        name="baseline",
        activation="relu",
        lr=0.01,
        batch_size=64,
        epoch_loss=(
            0.238091,
            0.060085,
            0.048199,
            0.040758,
            0.037220,
            0.032522,
            0.027723,
            0.025383,
            0.024495,
            0.020056,
        ),
        train=AccuracyTable(
            (99.61, 99.84, 99.33, 99.46, 99.62, 98.62, 99.59, 99.17, 99.90, 99.55), 59687, 60000
        ),
        test=AccuracyTable(
            (99.08, 99.65, 99.03, 99.31, 99.39, 98.32, 98.96, 98.25, 99.90, 98.51), 9905, 10000
        ),
    ),
    Section(
        number="2.1",
        name="sigmoid",
        activation="sigmoid",
        lr=0.01,
        batch_size=64,
        epoch_loss=(
            0.459306,
            0.117846,
            0.088477,
            0.070208,
            0.055406,
            0.051293,
            0.045458,
            0.040638,
            0.033711,
            0.028583,
        ),
    ),
    Section(
        number="2.2",
        name="tanh",
        activation="tanh",
        lr=0.01,
        batch_size=64,
        epoch_loss=(
            0.227151,
            0.087603,
            0.064684,
            0.057211,
            0.053132,
            0.049060,
            0.042066,
            0.040804,
            0.037089,
            0.033490,
        ),
    ),
    Section(
        number="3.1",
        name="learning rate 0.1",
        activation="relu",
        lr=0.1,
        batch_size=64,
        epoch_loss=(
            0.445695,
            0.154676,
            0.172336,
            0.217493,
            0.205724,
            0.221442,
            0.219673,
            0.267547,
            0.235116,
            0.262535,
        ),
        train=AccuracyTable(
            (92.89, 98.32, 97.15, 91.57, 93.22, 93.29, 96.38, 88.75, 88.58, 90.15), 55846, 60000
        ),
        test=AccuracyTable(
            (93.88, 99.03, 97.77, 93.17, 94.20, 94.96, 96.14, 86.96, 91.17, 90.29), 9380, 10000
        ),
    ),
    Section(
        number="3.2",
        name="batch size 1000",
        activation="relu",
        lr=0.01,
        batch_size=1000,
        epoch_loss=(
            1.300220,
            0.080770,
            0.050001,
            0.035437,
            0.031106,
            0.024471,
            0.021176,
            0.017281,
            0.017386,
            0.014068,
        ),
        train=AccuracyTable(
            (99.85, 99.82, 99.45, 99.74, 99.85, 99.93, 99.81, 99.92, 98.89, 99.29), 59794, 60000
        ),
        test=AccuracyTable(
            (99.59, 99.82, 99.61, 99.11, 99.39, 99.78, 98.64, 99.61, 98.56, 98.51), 9927, 10000
        ),
    ),
)

#: The iteration log of section 1.2, in its two stretches.
EXCERPTS = (
    Excerpt(
        number="1.2",
        epoch=1,
        first=910,
        losses=(
            0.078050,
            0.024338,
            0.070253,
            0.053879,
            0.072964,
            0.010970,
            0.038593,
            0.063646,
            0.037326,
            0.164032,
            0.036301,
            0.106720,
            0.194654,
            0.033009,
            0.011926,
            0.032943,
            0.046287,
            0.051310,
            0.165637,
            0.018486,
            0.034492,
            0.007392,
            0.004396,
            0.031890,
            0.110289,
            0.256125,
            0.049029,
            0.114659,
        ),
    ),
    Excerpt(number="1.2", epoch=2, first=0, losses=(0.052260, 0.014100, 0.045208)),
)

# fmt: on

#: The loss that the log of section 1.2 prints at the end of epoch 1. The list of epoch losses in
#: the same section has 0.060085: the two come from different trainings.
EXCERPT_EPOCH_LOSS = 0.065681

#: The loss after ten epochs in the sentence of section 1.2; the list above it ends at 0.020056.
STATED_FINAL_LOSS = 0.20056


def section(number: str) -> Section:
    """The original's section of that number."""
    return next(section for section in SECTIONS if section.number == number)


def section_of(config: Config) -> Section | None:
    """The original's training with this activation, learning rate and batch size, if it has one.

    Other fields are not looked at: the original names none of them, see `recipes`. To tell runs
    apart by their sections is right only where these are the same.

    None as well for images that are not MNIST's: there is nothing to compare.
    """
    if config.dataset not in ("mnist", "mnist-5k"):
        return None
    key = (config.activation, config.lr, config.batch_size)
    for section in SECTIONS:
        if (section.activation, section.lr, section.batch_size) == key:
            return section
    return None
