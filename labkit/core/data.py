"""Images and labels as tensors on the device. A batch is an index slice; there is no loader."""

import contextlib
import functools
import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import platformdirs

from labkit.core import own
from labkit.core.config import DATASETS, DIGITS, GREY, OWN, SHAPES, dataset_name
from labkit.core.values import DataError as DataError

if TYPE_CHECKING:  # torch is imported where images are read: of recorded runs they need not be
    import torch
    from torch import Tensor

#: SHA-256 over the bytes of training images, training labels, test images and test labels, where
#: it is known: so a recorded run is found without the data at hand, and damage is noticed.
CHECKSUMS = {
    "mnist-5k": "6f1dec24eae41a252e3fca6a88ec181b02f7b1216ac93dfe6f7b9ad531d0aaef",
    "mnist": "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
}
#: The classes of `torchvision.datasets` behind the names.
TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
}
#: What reading damaged files raises.
DAMAGE = (RuntimeError, ValueError, AssertionError, OSError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Split:
    """Images, uint8 `[n, C, H, W]`, and labels, int64 `[n]`, on one device."""

    images: "Tensor"
    labels: "Tensor"

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: "torch.device") -> Self:
        """The same split on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A dataset's two splits; `mean` and `std` are the training pixels', on the scale 0..1, of each
    channel; `classes` are the names of the labels."""

    name: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    classes: tuple[str, ...] = DIGITS

    def to(self, device: "torch.device") -> Self:
        """The same data on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def prepare(self, images: "Tensor", normalization: str) -> "Tensor":
        """Float images for the network from uint8 ones, both `[n, C, H, W]`."""
        pixels = images.float() / 255
        if normalization == "-1-1":
            return 2 * pixels - 1
        if normalization == "mean-std":
            for channel, mean, std in zip(pixels.unbind(1), self.mean, self.std, strict=True):
                channel.sub_(mean).div_(std)
        return pixels


def data_folder() -> Path:
    """Where the datasets are kept: `$LABKIT_DATA`, or this user's cache."""
    default = platformdirs.user_cache_path("labkit") / "data"
    return Path(os.environ.get("LABKIT_DATA") or default).expanduser()


@functools.lru_cache(maxsize=1)
def load(dataset: str) -> Data:
    """The dataset's images and labels on the CPU, read once, and checked against their checksum.

    `mnist-5k` is part of the package: 5,000 of MNIST's training images, 400 of each digit to train
    on and 100 to test on; mnist-5k.md names their source. The others come from `data_folder()`,
    where torchvision downloads them if they are missing; those whose name begins with "own:" are
    the user's, see `own`.

    Raises:
        DataError: the images are neither on disk nor to be downloaded, or are damaged.
    """
    dataset_name("dataset", dataset)
    if dataset.startswith(OWN):
        return _own(dataset)
    place = "in the package" if dataset == "mnist-5k" else f"in {data_folder()}"
    try:
        splits, classes = _embedded() if dataset == "mnist-5k" else _torchvision(dataset)
        digest = hashlib.sha256()
        for split, expected in zip(splits, DATASETS[dataset], strict=True):
            shape = (expected, *SHAPES.get(dataset, GREY))
            if split.images.shape != shape or split.labels.shape != (expected,):
                raise ValueError(f"{tuple(split.images.shape)} images instead of {shape}")
            _take_up(digest, split)
        sha256 = digest.hexdigest()
        if (known := CHECKSUMS.get(dataset, sha256)) != sha256:
            raise ValueError(f"their checksum is {sha256[:12]}, not {known[:12]}")
    except DAMAGE as error:
        raise DataError(
            f"the {dataset} files {place} are damaged ({_first_line(error)}). {_way_out(dataset)}"
        ) from error
    return Data(dataset, *splits, *_moments(splits[0].images), sha256, classes)


def _own(dataset: str) -> Data:
    """The user's images; their checksum covers their shape, and what the classes are called."""
    import torch

    arrays, classes = own.read(dataset.removeprefix(OWN), data_folder())
    head = [[images.shape for images, _ in arrays], classes]
    digest = hashlib.sha256(json.dumps(head).encode())
    splits = [Split(*map(torch.from_numpy, pair)) for pair in arrays]
    for split in splits:
        _take_up(digest, split)
    moments = _moments(splits[0].images)
    return Data(dataset, *splits, *moments, digest.hexdigest(), classes)


def _take_up(digest: Any, split: Split) -> None:
    """Let a checksum cover a split."""
    for part in (split.images, split.labels):
        digest.update(part.byte().numpy().tobytes())


def _moments(images: "Tensor") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pixels of each channel; a deviation of 1 where all are the same."""
    import torch

    levels, found = torch.arange(256, dtype=torch.float64) / 255, []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).double()  # exact: whole numbers
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        found.append((mean, variance**0.5 or 1.0))
    return tuple(zip(*found, strict=True))


def checksum(dataset: str) -> str:
    """The data's SHA-256; loads the data only where the checksum is not known beforehand."""
    return CHECKSUMS.get(dataset) or load(dataset).sha256


def training_images(dataset: str) -> int:
    """How many there are; loads the data only where that is not known beforehand."""
    return DATASETS[dataset][0] if dataset in DATASETS else len(load(dataset).train)


def sizes(dataset: str) -> tuple[int, int, int, int]:
    """Channels, height and width of an image, and how many classes there are; loads the data only
    where these are not known beforehand."""
    if dataset in DATASETS:
        return *SHAPES.get(dataset, GREY), len(DIGITS)
    data = load(dataset)
    return *data.train.images.shape[1:], len(data.classes)


def at_hand(dataset: str) -> bool:
    """Whether the dataset's files are on this disk, so that `load` downloads nothing."""
    if dataset.startswith(OWN):
        return bool(own.places(dataset.removeprefix(OWN), data_folder()))
    return dataset == "mnist-5k" or all(path.is_file() for path in _files(dataset))


def _files(dataset: str) -> list[Path]:
    """Where torchvision keeps a dataset."""
    if dataset == "cifar10":
        names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
        return [data_folder() / "cifar-10-batches-py" / name for name in names]
    raw = data_folder() / TORCHVISION[dataset] / "raw"
    parts = ("images-idx3", "labels-idx1")
    return [raw / f"{split}-{part}-ubyte" for split in ("train", "t10k") for part in parts]


def _embedded() -> tuple[list[Split], tuple[str, ...]]:
    import torch

    with np.load(Path(__file__).with_name("mnist-5k.npz")) as arrays:
        images = torch.from_numpy(arrays["images"]).unsqueeze(1)
        labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    train = DATASETS["mnist-5k"][0]
    parts = slice(train), slice(train, None)
    return [Split(images[part], labels[part]) for part in parts], DIGITS


def _torchvision(dataset: str) -> tuple[list[Split], tuple[str, ...]]:
    import torch
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
    found = [source(folder, train=train) for train in (True, False)]
    splits = [Split(_planes(one.data), torch.as_tensor(one.targets).long()) for one in found]
    return splits, tuple(found[0].classes) if dataset == "cifar10" else DIGITS


def _planes(images: "Tensor | np.ndarray") -> "Tensor":
    """torchvision's images, `[n, H, W]` or `[n, H, W, C]`, as `[n, C, H, W]`."""
    import torch

    images = torch.as_tensor(images)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()


def _way_out(dataset: str) -> str:
    if dataset == "mnist-5k":
        return "Reinstall labkit, which they ship with."
    place = _files(dataset)[0].parent
    return (
        f"Put its files into {place} (delete damaged ones first), or set LABKIT_DATA to the "
        f"folder that holds {place.relative_to(data_folder())}, or go online, or use the dataset "
        "mnist-5k, which needs no download."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
