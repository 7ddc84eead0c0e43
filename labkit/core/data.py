"""Images and labels as tensors on the device. A batch is an index slice; there is no loader."""

import contextlib
import functools
import hashlib
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import platformdirs
import torch
from torch import Tensor

from labkit.core.config import DATASETS
from labkit.core.values import LabkitError, choice

#: SHA-256 over the bytes of training images, training labels, test images and test labels, where
#: it is known: so a recorded run is found without the data at hand, and damage is noticed.
CHECKSUMS = {
    "mnist-5k": "6f1dec24eae41a252e3fca6a88ec181b02f7b1216ac93dfe6f7b9ad531d0aaef",
    "mnist": "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
}
#: The classes of `torchvision.datasets` behind the names; the images of each are 28×28 and grey.
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
#: What reading damaged files raises.
DAMAGE = (RuntimeError, ValueError, AssertionError, OSError, KeyError, zipfile.BadZipFile)


class DataError(LabkitError):
    """Images that are missing or damaged; the sentence names the ways out."""


@dataclass(frozen=True)
class Split:
    """Images, uint8 `[n, 28, 28]`, and labels, int64 `[n]`, on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """The same split on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A dataset's two splits; `mean` and `std` are the training pixels', on the scale 0..1."""

    name: str
    train: Split
    test: Split
    mean: float
    std: float
    sha256: str

    def to(self, device: torch.device) -> Self:
        """The same data on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def prepare(self, images: Tensor, normalization: str) -> Tensor:
        """Float images `[n, 1, 28, 28]` for the network from uint8 ones `[n, 28, 28]`."""
        pixels = images.unsqueeze(1).float() / 255
        if normalization == "-1-1":
            return 2 * pixels - 1
        return (pixels - self.mean) / self.std if normalization == "mean-std" else pixels


def data_folder() -> Path:
    """Where torchvision keeps the datasets: `$LABKIT_DATA`, or this user's cache."""
    default = platformdirs.user_cache_path("labkit") / "data"
    return Path(os.environ.get("LABKIT_DATA") or default).expanduser()


@functools.lru_cache(maxsize=1)
def load(dataset: str) -> Data:
    """The dataset's images and labels on the CPU, checked against their checksum.

    `mnist-5k` is part of the package: 5,000 of MNIST's training images, 400 of each digit to train
    on and 100 to test on; mnist-5k.md names their source. The others come from `data_folder()`,
    where torchvision downloads them if they are missing.

    Raises:
        DataError: the images are neither on disk nor to be downloaded, or are damaged.
    """
    choice("dataset", dataset, DATASETS)
    place = "in the package" if dataset == "mnist-5k" else f"in {data_folder()}"
    try:
        train, test = _embedded() if dataset == "mnist-5k" else _torchvision(dataset)
        digest = hashlib.sha256()
        for split, expected in zip((train, test), DATASETS[dataset], strict=True):
            if split.images.shape != (expected, 28, 28) or split.labels.shape != (expected,):
                raise ValueError(f"{tuple(split.images.shape)} images instead of {expected}")
            for part in (split.images, split.labels):
                digest.update(part.to(torch.uint8).numpy().tobytes())
        sha256 = digest.hexdigest()
        if (known := CHECKSUMS.get(dataset, sha256)) != sha256:
            raise ValueError(f"their checksum is {sha256[:12]}, not {known[:12]}")
    except DAMAGE as error:
        raise DataError(
            f"the {dataset} files {place} are damaged ({_first_line(error)}). {_way_out(dataset)}"
        ) from error
    counts = torch.bincount(train.images.flatten(), minlength=256).double()  # exact: whole numbers
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = float((counts * levels).sum() / counts.sum())
    variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
    return Data(dataset, train, test, mean, variance**0.5, sha256)


def checksum(dataset: str) -> str:
    """The data's SHA-256; loads the data only where the checksum is not known beforehand."""
    return CHECKSUMS.get(dataset) or load(dataset).sha256


def at_hand(dataset: str) -> bool:
    """Whether the dataset's files are on this disk, so that `load` downloads nothing."""
    if dataset == "mnist-5k":
        return True
    raw = data_folder() / TORCHVISION[dataset] / "raw"
    return all(
        (raw / f"{split}-{part}-ubyte").is_file()
        for split in ("train", "t10k")
        for part in ("images-idx3", "labels-idx1")
    )


def _embedded() -> tuple[Split, Split]:
    with np.load(Path(__file__).with_name("mnist-5k.npz")) as arrays:
        images = torch.from_numpy(arrays["images"])
        labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    train = DATASETS["mnist-5k"][0]
    return Split(images[:train], labels[:train]), Split(images[train:], labels[train:])


def _torchvision(dataset: str) -> tuple[Split, Split]:
    import torchvision.datasets  # here, since it takes a second and mnist-5k needs none of it

    source, folder = getattr(torchvision.datasets, TORCHVISION[dataset]), data_folder()
    if not at_hand(dataset):
        print(f"downloading {dataset} into {folder}", flush=True)
        try:
            with contextlib.redirect_stdout(None):  # torchvision prints each address it tries
                source(folder, download=True)
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"{dataset} is not in the data folder {folder} and could not be downloaded "
                f"({_first_line(error)}). {_way_out(dataset)}"
            ) from error
    train, test = (source(folder, train=train) for train in (True, False))
    return Split(train.data, train.targets.long()), Split(test.data, test.targets.long())


def _way_out(dataset: str) -> str:
    if dataset == "mnist-5k":
        return "Reinstall labkit, which they ship with."
    raw = data_folder() / TORCHVISION[dataset] / "raw"
    return (
        f"Put its four files into {raw} (delete damaged ones first), or set LABKIT_DATA to the "
        f"folder that holds {TORCHVISION[dataset]}/raw, or go online, or use the dataset "
        "mnist-5k, which needs no download."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
