"""Images of the user's own, and CIFAR-10: read, trained on, kept, and shown by their names."""

import base64
import dataclasses
import hashlib
import io
import itertools
import pickle
import re
import shutil

import alterations
import numpy as np
import pytest
import torch
import torchvision
from bs4 import BeautifulSoup
from helpers import forge, made_up_run
from PIL import Image
from sklearn.metrics import confusion_matrix

from labkit import conclusions, gallery, notebook, plots, reasons, run, run_all, tables
from labkit.core import data, model
from labkit.core.config import DATASETS, OWN, Config
from labkit.core.layers import probe
from labkit.core.values import ConfigError, DataError
from labkit.lab.slim import slim
from labkit.report.verify import images_of, verify
from labkit.show import overview
from labkit.store.audit import record_problems
from labkit.store.folder import DamagedError, Store, load

FLOWERS = ("daisy", "rose", "tulip")
LONG = (
    "Chrysanthemum indicum", "Bellis perennis", "Rosa × damascena", "Tulipa gesneriana",
    "Helianthus annuus", "Lavandula angustifolia", "Taraxacum officinale", "Papaver rhoeas",
    "Narcissus pseudonarcissus", "Iris germanica",
)  # fmt: skip
FORTY = tuple(f"species number {number}" for number in range(40))
ANY = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A data folder of its own."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    data.load.cache_clear()
    return tmp_path / "data"


def write_folder(root, classes=FLOWERS, train=24, test=6, size=(32, 32), mode="RGB"):
    """So many images of each class as PNGs, in a colour of its own: split → their pixels."""
    pixels = {}
    for (split, images), (label, name) in itertools.product(
        (("train", train), ("test", test)), enumerate(classes)
    ):
        place = root / split / name
        place.mkdir(parents=True)
        for number in range(images):
            shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
            image = ANY.integers(0, 120, shape, dtype=np.uint8) + np.uint8(60 * label)
            Image.fromarray(image).save(place / f"{number:02}.png")
            pixels.setdefault(split, []).append(image)
    return pixels


def arrays(classes=10, train=80, test=30, shape=(20, 24), **more):
    """What an npz file of own images holds."""
    sizes = {"train": train, "test": test}
    images = {f"{k}_images": ANY.integers(0, 256, (n, *shape), np.uint8) for k, n in sizes.items()}
    return images | {f"{k}_labels": np.arange(n) % classes for k, n in sizes.items()} | more


def write_cifar10(root, monkeypatch):
    """A made-up CIFAR-10 in torchvision's layout, of 50 and 10 images: its arrays."""
    place = root / "cifar-10-batches-py"
    place.mkdir()
    parts = {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        parts[name] = ANY.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {"data": parts[name], "labels": list(range(10))}
        (place / name).write_bytes(pickle.dumps(batch))
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": list(LONG)}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setitem(DATASETS, "cifar10", (50, 10))
    return parts


def test_a_folder_by_class_is_read_as_pil_reads_it(folder):
    pixels = write_folder(folder / "flowers", size=(20, 16))
    loaded = data.load("own:flowers")
    assert loaded.classes == FLOWERS
    for split in ("train", "test"):
        images, labels = getattr(loaded, split).images, getattr(loaded, split).labels
        assert torch.equal(images, torch.tensor(np.array(pixels[split])).permute(0, 3, 1, 2))
        assert labels.tolist() == np.repeat(range(3), len(labels) // 3).tolist()
    plain = np.array(pixels["train"]) / 255
    assert loaded.mean == pytest.approx(plain.mean((0, 1, 2)))
    assert loaded.std == pytest.approx(plain.std((0, 1, 2)))
    theirs = torchvision.transforms.Normalize(loaded.mean, loaded.std)(loaded.train.images / 255)
    assert torch.allclose(loaded.prepare(loaded.train.images, "mean-std"), theirs)
    assert data.sizes("own:flowers") == (3, 16, 20, 3) and data.at_hand("own:flowers")


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1), (9, 8, 3), (9, 8, 5)])
def test_arrays_are_read_as_they_are(folder, shape):
    given = arrays(shape=shape)
    given["train_labels"] = given["train_labels"][:, None]  # as MedMNIST has them
    np.savez_compressed(folder / "ten.npz", **given)
    loaded = data.load("own:ten")
    assert loaded.classes == tuple("0123456789")
    images = given["train_images"].reshape(80, *shape[:2], -1)
    assert np.array_equal(loaded.train.images.permute(0, 2, 3, 1), images)
    assert loaded.train.labels.tolist() == given["train_labels"].ravel().tolist()


def test_the_checksum_covers_pixels_labels_shape_and_names(folder):
    given = arrays(shape=(20, 24))
    other = given["test_labels"][::-1].copy()
    turned = {f"{k}_images": given[f"{k}_images"].reshape(-1, 24, 20) for k in ("train", "test")}
    changes = ({}, {"test_labels": other}, turned, {"classes": LONG}, {"classes": LONG[::-1]})
    found = set()
    for change in changes:
        np.savez(folder / "ten.npz", **given | change)
        data.load.cache_clear()
        found.add(data.checksum("own:ten"))
    assert len(found) == len(changes)


def test_cifar10_is_read_as_torchvision_keeps_it(folder, monkeypatch):
    parts = write_cifar10(folder, monkeypatch)
    loaded = data.load("cifar10")
    train = np.concatenate([parts[f"data_batch_{number}"] for number in range(1, 6)])
    assert loaded.train.images.numpy().tobytes() == train.tobytes()
    assert loaded.train.images.shape[1:] == (3, 32, 32) and loaded.classes == LONG
    (folder / "cifar-10-batches-py" / "test_batch").unlink()
    assert not data.at_hand("cifar10")


def spoilt(**change):
    return lambda root: np.savez(root / "mine.npz", **arrays() | change)


def folder_with(place, image):
    def write(root):
        write_folder(root / "mine", size=(8, 8))
        (root / "mine" / place).parent.mkdir(exist_ok=True)
        if isinstance(image, bytes):
            (root / "mine" / place).write_bytes(image)
        else:
            image.save(root / "mine" / place)

    return write


def twice(root):
    (root / "mine").mkdir()
    spoilt()(root)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda root: None, r"own:mine is not in the data folder .*mine/train/CLASS.*mine\.npz"),
        (twice, "own:mine is twice in the data folder"),
        (lambda root: (root / "mine").mkdir(), "has not a folder of images for every class"),
        (folder_with("train/rose/x.png", Image.new("RGB", (9, 7))),
         r"rose/x\.png is 9×7 colour, and .*daisy/00\.png 8×8 colour .*resize"),
        (folder_with("test/rose/x.png", Image.new("L", (8, 8))), r"is 8×8 grey, and .*8×8 colour"),
        (folder_with("test/rose/x.png", Image.new("RGBA", (8, 8))), "its mode is RGBA; it must be"),
        (folder_with("test/rose/x.png", b"\x89PNG\r\n\x1a\nnone"), r"x\.png cannot be read as an"),
        (folder_with("test/lily/x.png", Image.new("RGB", (8, 8))), "only one of them has lily"),
        (lambda root: (root / "mine.npz").write_bytes(b"PK"), r"mine\.npz cannot be read"),
        (lambda root: np.savez(root / "mine.npz", a=1), "cannot be read .*train_images"),
        (spoilt(train_labels=np.array([{}] * 80)), "cannot be read .*allow_pickle"),
        (spoilt(train_images=np.zeros((80, 20, 24))), r"train_images is float64\[80, 20, 24\]; it"),
        (spoilt(train_images=np.zeros((80, 3, 20, 24), "u1")), "of at most 16 channels"),
        (spoilt(test_images=np.zeros((30, 9, 9), "u1")), r"to train on and \(1, 9, 9\) to test on"),
        (spoilt(train_labels=np.arange(79)), "a whole number for each of the 80 images"),
        (spoilt(train_labels=np.arange(80) - 1), "labels from -1 to 78"),
        (spoilt(train_labels=np.arange(80) % 9 + 1), "no image of class 0 .*; labels count from 0"),
        (spoilt(classes=LONG[:3]), "labels from 0 to 9 to train on; they must be from 0 to 2"),
        (spoilt(classes=("a", "a")), "2 to 256 different names"),
        (spoilt(classes=("a", "<b>")), "2 to 256 different names"),
        (spoilt(train_labels=np.arange(80) * 4**20), "2 to 256 different names"),
        (spoilt(train_images=np.zeros((3, 20, 24), "u1"), train_labels=np.arange(3)),
         "has 3 images to train on; there must be 8 to"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_a_sentence(folder, write, said):
    write(folder)
    with pytest.raises(DataError, match=said):
        data.load("own:mine")
    assert not data.at_hand("own:mine") or any(folder.iterdir())


@pytest.mark.parametrize("name", ["own:", "own:../x", "own:a/b", "own:.x", "own:" + "x" * 61])
def test_a_name_that_is_no_file_of_the_data_folder_is_refused(name):
    for made in (lambda: Config(dataset=name), lambda: data.load(name)):
        with pytest.raises(ConfigError, match=f"must be one of mnist-5k, .*{OWN}NAME"):
            made()


def test_missing_images_and_a_lone_one_are_said_before_anything_runs(folder, command, capsys):
    out = folder.parent / "report"
    assert command("report", "--dataset", "own:none", "--output", out) == 1
    assert f"own:none is not in the data folder {folder}" in capsys.readouterr().err
    np.savez(folder / "mine.npz", **arrays(train=81))
    assert command("report", "--dataset", "own:mine", "-p", "batch_size", "80", "--output", out)
    assert "batch_size is 80; it must leave no batch of a single image out of 81" in (
        capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match="single image out of 81"):
        run_all({"a": Config(dataset="own:mine", batch_size=40)})
    assert not out.exists() and not Store().folder.exists()


def test_the_network_of_colour_images_is_torchvisions():
    plain = model.build(Config(), channels=3, classes=7).eval()
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    theirs.load_state_dict(plain.state_dict())
    x = torch.rand(4, 3, 40, 48)
    expected = theirs(x)
    assert torch.allclose(plain(x), expected, atol=1e-5)
    slimmed = slim(model.build(Config(), channels=3, classes=7), x.shape[1:]).eval()
    assert torch.allclose(slimmed(x), expected, atol=1e-4)
    assert probe(slimmed, x.shape[1:])[-1][3] == (7,)


KINDS = ("folder", "npz", "cifar10")


@pytest.fixture(params=KINDS)
def kind(request, folder, monkeypatch):
    """The name of a dataset with its classes: colour with three names, ten digits, CIFAR-10."""
    if request.param == "folder":
        write_folder(folder / "flowers")
        return "own:flowers", FLOWERS
    if request.param == "npz":
        np.savez(folder / "ten.npz", **arrays())
        return "own:ten", tuple("0123456789")
    write_cifar10(folder, monkeypatch)
    return "cifar10", LONG


def test_a_run_is_kept_with_its_classes_and_read_without_the_images(kind, folder):
    dataset, classes = kind
    config = Config(dataset=dataset, epochs=1, batch_size=20)
    trained = run(config, log="none")
    test = data.load(dataset).test
    assert trained.classes == classes and trained.test_labels.tolist() == test.labels.tolist()
    expected = confusion_matrix(
        trained.test_labels, trained.predicted(), labels=range(len(classes))
    )
    assert np.array_equal(trained.counts("test"), expected)
    assert run(config, log="none").recorded
    images = notebook.test_images(config)
    found = images_of(hashlib.sha256(images).hexdigest(), [dataset])
    assert np.array_equal(found, images)
    shutil.rmtree(folder)
    data.load.cache_clear()
    path = Store().folder / f"{trained.digest}.json"
    kept = load(path)
    assert kept.classes == classes and record_problems(path) == []
    assert ('"classes"' in path.read_text()) == (classes != tuple("0123456789"))
    table = tables.per_class({"a": [kept]}).frame
    assert [*table.index] == [*classes, "total"]
    shown = gallery.mistakes([kept], images)
    first = BeautifulSoup(shown.html, "html.parser").img
    if first:  # two updates rarely suffice
        index = int(first["alt"].rpartition(" ")[2])
        true, answer = trained.test_labels[index], trained.predicted()[index]
        assert first["alt"].startswith(f"{classes[true]} taken for {classes[answer]} in 1 run")
        picture = Image.open(io.BytesIO(base64.b64decode(first["src"].partition(",")[2])))
        pixels = np.asarray(picture).reshape(*images.shape[2:], -1).transpose(2, 0, 1)
        assert np.array_equal(pixels, images[index])  # as they are, and in colour
    wrong = int((~kept.right()).sum())
    twice = gallery.mistakes([kept, kept], None)
    assert f"{2 * wrong:,} mistakes on test images, {wrong:,} different ones" in twice.html
    without = gallery.mistakes([kept], None)
    assert re.sub('src="[^"]*"', 'src=""', shown.html) == without.html


CELLS = [
    "# 3.1 Flowers",
    "dataset, epochs = 'own:flowers', 1",
    "from labkit import Config, conclusions, gallery, notebook, plots, run_all, tables\n"
    "base = Config(dataset=dataset, epochs=epochs)\nruns = run_all({'baseline': base})",
    "plots.architecture(base, notebook.sizes(base))",
    "tables.layers(base, notebook.sizes(base))",
    "tables.per_class(runs)",
    "plots.confusion(runs, linked=True)",
    "gallery.mistakes(runs['baseline'], notebook.test_images(base))",
    "conclusions.claim(3, runs)",
]


def test_a_page_of_own_images_is_verified_with_and_without_them(folder, monkeypatch):
    write_folder(folder / "flowers")
    page = alterations.short_report(folder.parent / "short", CELLS, "own:flowers")
    text = page.read_text()
    assert "<h1>ResNet-18 on own:flowers</h1>" in text and "3×32×32" in text
    assert "for one image of 32×32 pixels" in text and "daisy" in text
    monkeypatch.setattr("labkit.report.build.notebook_folder", lambda: folder.parent / "short")
    for left in (0, 1):
        verdict = verify(page)
        assert verdict.problems == verdict.missing == []
        shrunk = verdict.checked["of these by their words alone, for want of the images"]
        assert shrunk == left * (' src="data:' in text)
        shutil.rmtree(folder, ignore_errors=True)
        data.load.cache_clear()


def overlap(labels):
    boxes = [label.get_window_extent() for label in labels]
    return any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("classes", [FLOWERS, LONG, FORTY, tuple("0123456789")])
def test_names_of_classes_never_overlap(classes):
    few = {(0, 1): 5, (1, 2): 3}
    runs = {
        label: [made_up_run(dataset="own:x", classes=classes, images=20, wrong=wrong, lr=lr)]
        for label, wrong, lr in (("baseline", few, 0.01), ("learning rate 0.1", {(2, 0): 9}, 0.1))
    }
    for figure in (
        plots.accuracy_by_class(runs),
        plots.confusion(runs, linked=True),
        plots.confusion_difference(runs),
    ):
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert not overlap(axes.get_xticklabels())
            assert not overlap(axes.get_yticklabels())
            labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]
            for label in labels:
                box = label.get_window_extent()
                assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0
        assert classes[2] in figure.alt or classes[0] in figure.alt
        assert ("20 of 40 classes" in figure.alt) == (classes is FORTY)
    links = set(re.findall('href="#(mistakes[^"]*)"', plots.confusion(runs, linked=True).svg()))
    assert links == {"mistakes-0-1", "mistakes-1-2", "mistakes-2-0"}


def test_nothing_of_the_original_and_no_digit_stands_beside_other_images():
    runs = {
        label: [made_up_run(dataset="own:x", classes=FLOWERS, wrong={(0, 2): 4}, lr=lr)]
        for label, lr in (("baseline", 0.01), ("learning rate 0.1", 0.1))
    }
    config = runs["baseline"][0].config
    shown = [
        *(make(runs) for make in (tables.summary, tables.per_class, tables.hardest, tables.epochs)),
        *(make(runs) for make in (tables.work, conclusions.loss, conclusions.compare)),
        tables.confused_pairs(runs["baseline"]),
        gallery.mistakes(runs["baseline"], None),
        *(plots.loss_by_epoch(runs).alt, plots.accuracy_by_class(runs).alt),
        *(plots.confusion(runs).alt, plots.confusion_difference(runs).alt),
    ]
    for one in map(str, shown):
        assert "original" not in one and "digit" not in one, one
    assert "daisy" in str(tables.hardest(runs)) and "tulip" in str(tables.hardest(runs))
    assert "images per epoch" in str(tables.work(runs)) and "300" in str(tables.work(runs))
    said = [conclusions.claim(number, runs) for number in range(1, 9)]
    said += [conclusions.printed("3.1", config), conclusions.excerpt(runs["baseline"][0])]
    said += [conclusions.scale(config, 1), plots.iterations(runs["baseline"]).alt]
    assert all("says nothing of these images" in str(one) for one in said)
    assert overview.finding("1", runs).markdown == ""


def test_a_class_may_be_called_total():
    group = [made_up_run(dataset="own:x", classes=("total", "rose"), wrong={(0, 1): 50})]
    assert tables.summary({"a": group}).frame["recalibrated", "test %"].item() == 75
    assert [*tables.per_class({"a": group}).frame["a", "accuracy %"]] == [50, 100, 75]


def test_runs_of_other_classes_are_not_compared_class_by_class():
    runs = {"a": [made_up_run()], "b": [made_up_run(dataset="own:x", classes=FLOWERS)]}
    for make in (tables.per_class, plots.confusion, plots.accuracy_by_class):
        with pytest.raises(ConfigError, match="only runs of the same images can be compared"):
            make(runs)


def test_one_confidence_names_the_classes():
    made = made_up_run(dataset="own:x", classes=FLOWERS)
    silent = np.ones(300, np.uint8)
    confidence = np.full(300, 0.5, np.float32)
    measures = made.measures | {"running_silent": silent}
    alike = dataclasses.replace(made, test_confidence=confidence, measures=measures)
    assert "“daisy” or “rose” or “tulip”" in str(reasons.identical({"a": [alike]}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ["a", "<script>", "c"]}, "different names"),
        ({"classes": ["a", "a", "c"]}, "different names"),
        ({"classes": ["a", "b"]}, "2 × 2 counts"),
        ({"classes": "abc"}, "the names of the classes"),
        ({"classes": None}, "the names of the classes"),
    ],
)
def test_classes_that_no_such_record_has_are_refused(tmp_path, change, said):
    store, made = (
        Store(tmp_path / "kept", shipped=None),
        made_up_run(dataset="own:x", classes=FLOWERS),
    )
    store.save(made)
    forge(store, made, lambda record: record | change)
    with pytest.raises(DamagedError, match=re.escape(said)):
        store.get(made.digest)
