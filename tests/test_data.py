import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers import CLASS_COUNTS

from labkit.core import data
from labkit.core.data import DataError
from labkit.core.device import DeviceError, find_device

MNIST = Path(os.environ.get("LABKIT_DATA", "")) / "MNIST" / "raw"
needs_mnist = pytest.mark.skipif(
    not (MNIST / "train-images-idx3-ubyte").is_file(),
    reason="full MNIST is not at hand (LABKIT_DATA)",
)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST's files: magic number, dimensions, bytes."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


@pytest.fixture
def kmnist(tmp_path, monkeypatch):
    """A made-up kmnist in a data folder: the right shapes, random content."""
    raw = tmp_path / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    return raw


def test_mnist_5k_has_as_many_images_of_each_digit():
    loaded = data.load("mnist-5k")
    assert loaded.train.labels.bincount().tolist() == [400] * 10
    assert loaded.test.labels.bincount().tolist() == [100] * 10
    assert loaded.train.images.dtype == torch.uint8


@needs_mnist
def test_mnist_5k_is_part_of_mnists_training_images():
    whole = data.load("mnist").train
    digits = dict(zip(map(bytes, whole.images.numpy()), whole.labels.tolist(), strict=True))
    few = data.load("mnist-5k")
    found = [bytes(image) for split in (few.train, few.test) for image in split.images.numpy()]
    assert len(set(found)) == 5000
    labels = [*few.train.labels.tolist(), *few.test.labels.tolist()]
    assert [digits[image] for image in found] == labels


def test_prepare_normalises_by_the_training_images():
    loaded = data.load("mnist-5k")
    pixels = loaded.prepare(loaded.train.images, "mean-std")
    assert pixels.shape == (4000, 1, 28, 28)
    assert pixels.mean().item() == pytest.approx(0, abs=1e-4)
    assert pixels.std().item() == pytest.approx(1, abs=1e-4)
    plain = loaded.prepare(loaded.train.images, "0-1")
    assert torch.equal(plain, loaded.train.images / 255)
    around_zero = loaded.prepare(loaded.train.images, "-1-1")
    theirs = torchvision.transforms.Normalize(0.5, 0.5)(plain)  # as tutorials have it
    assert around_zero.aminmax() == (-1, 1) and torch.allclose(around_zero, theirs)


def test_a_torchvision_dataset_is_read_as_it_lies_on_disk(kmnist):
    loaded = data.load("kmnist")
    assert len(loaded.train) == 60_000 and len(loaded.test) == 10_000
    raw = (kmnist / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert loaded.test.images.numpy().tobytes() == raw
    assert data.checksum("kmnist") == loaded.sha256


def test_a_truncated_file_is_a_sentence(kmnist):
    path = kmnist / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"kmnist files in .* are damaged .*delete damaged ones"):
        data.load("kmnist")


def test_a_split_of_the_wrong_size_is_a_sentence(kmnist):
    write_idx(kmnist / "t10k-labels-idx1-ubyte", np.zeros(9_999, np.uint8))
    with pytest.raises(DataError, match="damaged"):
        data.load("kmnist")


def test_a_file_with_garbage_is_a_sentence(kmnist):
    (kmnist / "t10k-labels-idx1-ubyte").write_bytes(gzip.compress(b"not an idx file"))
    with pytest.raises(DataError, match="damaged"):
        data.load("kmnist")


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_missing_data_names_the_ways_out(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError) as caught:
        data.load(dataset)
    for way in ("LABKIT_DATA", "go online", "mnist-5k", str(tmp_path)):
        assert way in str(caught.value)


@needs_mnist
def test_full_mnist_has_its_published_class_counts(monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(MNIST.parent.parent))
    loaded = data.load("mnist")
    for split in ("train", "test"):
        assert tuple(getattr(loaded, split).labels.bincount().tolist()) == CLASS_COUNTS[split]
    raw = (MNIST / "train-images-idx3-ubyte").read_bytes()[16:]
    assert loaded.train.images.numpy().tobytes() == raw


@needs_mnist
def test_one_flipped_byte_of_mnist_is_noticed(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in MNIST.glob("*-ubyte"):
        content = bytearray(path.read_bytes())
        if path.name == "t10k-images-idx3-ubyte":
            content[4_000_000] ^= 1
        (raw / path.name).write_bytes(content)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises(DataError, match="checksum"):
        data.load("mnist")


def test_device_order_and_the_sentence_for_one_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="device is 'cuda'; it must be one that this machine has"):
        find_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device() == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError):
        find_device("cuda:2")
