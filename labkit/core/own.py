"""Images of the user's own: a folder of images by class, or arrays in an npz file."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labkit.core.config import MOST_IMAGES, OWN
from labkit.core.values import ConfigError, DataError, class_names
from labkit.core.words import SPLITS

FEWEST = 8  # training images: the diagnostics draw four batches of them
MOST_CHANNELS = 16
GREY, COLOUR = ("1", "L"), ("RGB", "P")  # modes of PIL that have eight bits and no transparency
Splits = list[tuple[np.ndarray, np.ndarray]]  # images and labels, to train and to test on


def places(name: str, folder: Path) -> list[Path]:
    """Where in the data folder the images of that name are: a folder, an npz file, or nowhere."""
    return [path for path in (folder / name, folder / f"{name}.npz") if path.exists()]


def read(name: str, folder: Path) -> tuple[Splits, tuple[str, ...]]:
    """The images of that name, uint8 `[n, C, H, W]`, with their labels, int64 `[n]`, to train and
    to test on, and the names of the classes.

    Raises:
        DataError: they are not in the data folder, or are none that a network can be trained on.
    """
    found = places(name, folder)
    if len(found) != 1:
        raise DataError(
            f"{OWN}{name} is {'twice' if found else 'not'} in the data folder {folder}; it must "
            f"be there as {name}/train/CLASS and {name}/test/CLASS, folders with the images of "
            f"each class, or as {name}.npz with the arrays train_images, train_labels, "
            "test_images, test_labels and, if they have names, classes. LABKIT_DATA names another "
            "data folder."
        )
    path = found[0]
    splits, classes = _folder(path) if path.is_dir() else _arrays(path)
    for (images, labels), split, least in zip(splits, SPLITS, (FEWEST, 1), strict=True):
        if not least <= len(images) <= MOST_IMAGES:
            raise DataError(
                f"{path} has {len(images):,} images to {split} on; there must be {least} to "
                f"{MOST_IMAGES:,}."
            )
        if labels.min() < 0 or labels.max() >= len(classes):
            raise DataError(
                f"{path} has labels from {labels.min()} to {labels.max()} to {split} on; they "
                f"must be from 0 to {len(classes) - 1}, one for each of the {len(classes)} classes."
            )
    numbered = list(classes) == [str(label) for label in range(len(classes))]
    lacking = set(range(len(classes))).difference(splits[0][1].tolist())
    if numbered and lacking:
        raise DataError(
            f"{path} has no image of class {min(lacking)} to train on; labels count from 0. A "
            "class may lack images only where an array classes names them all."
        )
    return splits, classes


def _folder(root: Path) -> tuple[Splits, tuple[str, ...]]:
    from torchvision.datasets import ImageFolder  # here, since it takes a second

    try:
        train, test = (ImageFolder(root / split) for split in SPLITS)
        classes = class_names(f"{root / 'train'}, its folders,", train.classes)
    except (OSError, ConfigError) as error:
        said = f"{root} has not a folder of images for every class ({_said(error)})."
        raise DataError(said) from error
    if odd := set(train.classes) ^ set(test.classes):
        raise DataError(
            f"{root}/train and {root}/test must have the same classes; only one of them has "
            f"{', '.join(sorted(odd))}."
        )
    first = train.samples[0][0]
    return [_decoded(split.samples, first) for split in (train, test)], classes


def _decoded(samples: Sequence[tuple[str, int]], first: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of some files, with their labels; each must be as the `first` file is."""
    wanted = _pixels(first).shape
    images = np.empty((len(samples), *wanted), np.uint8)
    for place, (path, _) in enumerate(samples):
        found = _pixels(path)
        if found.shape != wanted:
            raise DataError(
                f"{path} is {_form(found.shape)}, and {first} {_form(wanted)} (width×height); all "
                "images must have one size and be all grey or all colour. With PIL, "
                "Image.open(path).convert('RGB').resize((64, 64)).save(path) makes an image so."
            )
        images[place] = found
    return images, np.array([label for _, label in samples], np.int64)


def _form(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}×{height} {'colour' if channels > 1 else 'grey'}"


def _pixels(path: str) -> np.ndarray:
    """The pixels of an image, uint8 `[C, H, W]`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in GREY:
                return np.asarray(image.convert("L"))[None]
            if image.mode in COLOUR:
                return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            reason = f"its mode is {image.mode}; it must be grey or RGB, with eight bits"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = _said(error)
    raise DataError(f"{path} cannot be read as an image ({reason}).")


def _arrays(path: Path) -> tuple[Splits, tuple[str, ...]]:
    """The content of an npz file; nothing in it is executed."""
    try:
        with np.load(path) as arrays:
            given = [(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS]
            named = arrays["classes"].tolist() if "classes" in arrays else None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({_said(error)}).") from error
    splits = [_split(f"{path}, {split}", *pair) for split, pair in zip(SPLITS, given, strict=True)]
    one, other = (images.shape[1:] for images, _ in splits)
    if one != other:
        raise DataError(f"{path} has images {one} to train on and {other} to test on.")
    if named is None:
        highest = min(256, max(labels.max() for _, labels in splits))  # of which 256 is refused
        named = [str(label) for label in range(highest + 1)]
    try:
        return splits, class_names(f"{path}, its array classes,", named)
    except ConfigError as error:
        raise DataError(str(error)) from error


def _split(place: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of an npz file as a network takes them."""
    last = images.shape[3] if images.ndim == 4 else 1
    good = images.ndim in (3, 4) and images.size and last <= MOST_CHANNELS
    if images.dtype != np.uint8 or not good:
        raise DataError(
            f"{place}_images is {images.dtype}{list(images.shape)}; it must be uint8 with the axes "
            f"[n, height, width] or [n, height, width, channels], of at most {MOST_CHANNELS} "
            "channels."
        )
    if labels.dtype.kind not in "iu" or labels.size != len(images):
        raise DataError(
            f"{place}_labels is {labels.dtype}{list(labels.shape)}; it must be a whole number for "
            f"each of the {len(images):,} images."
        )
    planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(planes), labels.reshape(-1).astype(np.int64)


def _said(error: Exception) -> str:
    """The first line of what went wrong."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
