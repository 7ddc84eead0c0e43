"""What a trained network predicts, and how often it is right."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from labkit.data import Data, Split


@dataclass(frozen=True)
class Predictions:
    """What the network said of a split's n images, as arrays `[n]` in the split's order.

    `labels` and `predicted` are classes (uint8); `confidence` is the softmax probability of the
    predicted class (float32, 0..1).
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    def accuracy(self) -> float:
        """The share of right answers, 0..1."""
        return float((self.labels == self.predicted).mean())

    def confusion(self, classes: int = 10) -> np.ndarray:
        """Counts, int64 `[classes, classes]`: row the true class, column the predicted one."""
        pairs = self.labels.astype(np.int64) * classes + self.predicted
        return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


#: Of a network whose weights are no longer numbers.
NO_ANSWERS = Predictions(np.zeros(0, np.uint8), np.zeros(0, np.uint8), np.zeros(0, np.float32))


def evaluate(
    model: nn.Module, data: Data, split: Split, normalization: str, batch_size: int = 500
) -> Predictions:
    """Predictions of `model` for `split`, both on one device.

    `batch_size` decides only the speed; on a CPU the maps of 1,000 images no longer fit its caches.

    Leaves the model in evaluation mode.
    """
    model.eval()
    predicted, confidence = [], []
    with torch.inference_mode():
        for images in split.images.split(batch_size):
            top = model(data.prepare(images, normalization)).softmax(1).max(1)
            predicted.append(top.indices.to(torch.uint8))
            confidence.append(top.values)
    return Predictions(
        labels=split.labels.to(torch.uint8).cpu().numpy(),
        predicted=torch.cat(predicted).cpu().numpy(),
        confidence=torch.cat(confidence).float().cpu().numpy(),
    )
