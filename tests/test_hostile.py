"""Files that someone else wrote: whatever is in them, one is a sentence and the others are read."""

import contextlib
import io
import json
import os
import random
import signal
import unicodedata
import zipfile

import numpy as np
import pytest
import torch
import torture
from click.testing import CliRunner
from helpers import forge, made_up_run, npz

from labkit import tables
from labkit.__main__ import cli, main
from labkit.store import inventory
from labkit.store.audit import record_problems
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import DamagedError, Store, StoreError, StoreWarning
from labkit.store.run import Run

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def little(seconds: int = 60, memory: int = 400 * 2**20):
    """What hangs or takes much memory in it fails."""

    def too_long(*_):
        raise AssertionError("it hangs")

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


@pytest.fixture
def store(tmp_path):
    """A good run and, for each test to spoil, another."""
    store = Store(tmp_path / "kept", shipped=None)
    store.save(made_up_run(seed=1))
    store.save(BAD)
    return store


BAD = made_up_run(seed=2)
GOOD = made_up_run(seed=1).digest


def only_the_bad_one_is_refused(store: Store, listed: str = "damaged") -> str:
    """Why it is, as whoever reads it is told.

    A listing compares the arrays' checksum, and does not look into them.
    """
    with little():
        table = inventory.listing(store).set_index("record")
        assert table["status"].to_dict() == {GOOD: "complete", BAD.digest: listed}
        with pytest.raises(DamagedError) as refused:
            store.get(BAD.digest)
        assert len(record_problems(store.folder / f"{BAD.digest}.json")) == 1
        outside = store.folder.parent / "copies"
        outside.mkdir()
        with pytest.raises(StoreError):
            store.copy(BAD.digest, outside)
    assert not list(outside.iterdir())
    problem = str(refused.value)
    assert listed == "complete" or table["problem"][BAD.digest] == problem
    assert "\n" not in problem and problem.endswith(".") and len(problem) < 1000
    return problem.partition(" is damaged: ")[2]


def test_a_record_that_is_no_file_neither_hangs_nor_takes_memory(store):
    path = store.folder / f"{BAD.digest}.json"
    for make in (os.mkfifo, lambda p: os.symlink("/dev/zero", p)):
        path.unlink()
        make(path)
        assert only_the_bad_one_is_refused(store) == "it is not a regular file."
        (store.folder.parent / "copies").rmdir()
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**34)
    assert "more than 16,777,216 bytes" in only_the_bad_one_is_refused(store)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("kind", ["npz", "checkpoint"])
def test_other_files_that_are_none(store, make, kind):
    (path,) = store.folder.glob(f"{BAD.digest}*.npz")
    if kind == "npz":
        path.unlink()
        make(path)
        assert only_the_bad_one_is_refused(store) == "it is not a regular file."
        return
    state = Checkpoint(store.folder / f"{'0' * 12}{SUFFIX}")
    make(state.path)
    with little():
        statuses = inventory.listing(store).set_index("record")["status"]
        assert statuses.to_dict() == {GOOD: "complete", BAD.digest: "complete", "0" * 12: "damaged"}
        assert state.started() == ""
        with pytest.warns(StoreWarning, match="not a regular file"):
            assert state.load(torch.device("cpu")) is None


@pytest.mark.parametrize("where", ["../elsewhere.npz", "{}/elsewhere.npz"])
def test_arrays_elsewhere_are_not_read(store, where):
    (path,) = store.folder.glob(f"{BAD.digest}*.npz")
    os.rename(path, store.folder.parent / "elsewhere.npz")
    file = where.format(store.folder.parent)
    forge(store, BAD, lambda record: record["arrays"].update(file=file))
    assert only_the_bad_one_is_refused(store).startswith(f"arrays.file is '{file}'")


def bomb() -> bytes:
    """A small archive that unpacks to 512 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("iteration_loss.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (2, 2**26)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(2**9):
                file.write(bytes(2**20))
        with zipfile.ZipFile(io.BytesIO(npz(BAD))) as good:
            for name in good.namelist()[1:]:
                archive.writestr(name, good.read(name))
    return buffer.getvalue()


def repacked(kind: int) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", kind) as archive,
        zipfile.ZipFile(io.BytesIO(npz(BAD))) as good,
    ):
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    return buffer.getvalue()


def plain_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def many_members() -> bytes:
    buffer = io.BytesIO(npz(BAD))
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(1000):
            archive.writestr(str(number), b"")
    return buffer.getvalue()


def with_header(text: str) -> bytes:
    content = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(32)
    return npz(BAD, replaced={"iteration_loss.npy": content})


GOOD_NPZ = npz(BAD)
HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1000000000000), }"


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (bomb, "iteration_loss has 67108864 iterations"),
        (plain_npy, "not a zip file"),
        (lambda: b"", "not a zip file"),
        (lambda: GOOD_NPZ[:-30], "not a zip file"),
        (lambda: GOOD_NPZ[:200] + bytes(50) + GOOD_NPZ[250:], "cannot be read"),
        (lambda: GOOD_NPZ.replace(b"iteration_loss.npy", b"iteration_lost.npy"), "all of iter"),
        (lambda: repacked(zipfile.ZIP_BZIP2), "packed in an unknown way"),
        (many_members, "too many"),
        (lambda: npz(BAD, test_labels=None), "it must be all of"),
        (lambda: npz(BAD, iteration_loss=np.ones((3, 4), "f4")), "3 epochs"),
        (lambda: npz(BAD, iteration_loss=np.ones((2, 64), "f4")), "64 iterations"),
        (lambda: npz(BAD, iteration_loss=np.ones((2, 99), "f4")), "99 iterations"),
        (lambda: npz(BAD, iteration_loss=np.ones((2, 0), "f4")), "0 iterations"),
        (lambda: npz(BAD, iteration_loss=np.ones((2, 4))), "float64"),
        (lambda: npz(BAD, iteration_loss=np.ones((4, 2), "f4").T), r"instead of <f4"),
        (lambda: npz(BAD, test_confidence=np.ones(7, "f4")), "test_confidence has 7 answers"),
        (lambda: npz(BAD, test_predicted=np.full(1000, 10, "u1")), "a class above 9"),
        (lambda: with_header(HUGE), "1000000000000 iterations"),
        (lambda: with_header(HUGE.replace("1000000000000", "3")), "is not as long as it says"),
        (lambda: with_header("-" * 250 + "1"), "cannot be read"),
        (lambda: with_header("(" * 9000), "cannot be read"),
    ],
)
def test_arrays_that_no_such_run_has_are_refused(store, packed, said):
    forge(store, BAD, packed=packed())
    assert said in only_the_bad_one_is_refused(store, listed="complete")


def nested(depth: int) -> list:
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("config", [], "config is []"),
        ("config", {"epochs": 2, "lr": [1]}, "config.lr is [1]"),
        ("config epochs", 10**9, "config: epochs is 1000000000"),
        ("config dataset", "x" * 10**6, "config.dataset is 'xxx"),
        ("recipe", "1", "recipe is '1'"),
        ("data_sha256", None, "data_sha256 is None"),
        ("format", "2", "in another format"),
        ("history", None, "history is None; it must be a list with a row per epoch"),
        ("history", [], "history is 0; it must be a list of 2 epochs"),
        ("history 0", 5, "history[0] is 5"),
        ("history 0 loss", "x", "history[0].loss is 'x'; it must be a finite number"),
        ("history 0 loss", 10**400, "history[0].loss is 1000000"),
        ("history 0 loss", float("nan"), "history[0].loss is 'NaN'; it must be a finite"),
        ("history 1 epoch", 0, "history[1].epoch is 0"),
        ("history 1", {"epoch": 1}, "history[1].loss is missing"),
        ("history 1 more", 1, "history[1] is ['epoch', 'loss'"),
        ("confusion", {"train": []}, "confusion.test is missing"),
        (
            "confusion test",
            [[1]] * 10,
            "confusion.test[0] is [1]; it must be a row of 2 to 256",
        ),
        ("confusion test", [], "confusion.test is []; it must be 2 to 256 rows of counts"),
        ("confusion test", 5, "confusion.test is 5"),
        ("confusion test 3 4", -1, "confusion.test[3][4] is -1; it must be a whole number"),
        ("confusion train 3 4", 10**12, "confusion.train[3][4] is 1000000000000"),
        ("confusion test 3 4", 0.5, "confusion.test[3][4] is 0.5"),
        ("provenance", None, "provenance is None"),
        ("provenance", [], "provenance is []"),
        ("provenance date", None, "provenance.date is None"),
        ("provenance date", "soon", "provenance.date is 'soon'; it must be a date as"),
        ("provenance date", "2026-01-02T03:04:05+05:00", "provenance.date is"),
        ("provenance device", ["cpu"], "provenance.device is"),
        ("provenance device", "\ud800", r"provenance.device is '\ud800'"),
        ("provenance date", "x" * 201, "provenance.date is 'xxx"),
        ("provenance threads", 0, "provenance.threads is 0"),
        ("provenance threads", 2.0, "provenance.threads is 2.0"),
        ("layers", {"heads": ["fc"]}, "layers is {'heads': ['fc']}"),
        ("layers", {"weights": []}, "layers.weights is []"),
        ("provenance commit", 5, "provenance.commit is 5"),
        ("provenance seconds", "5", "provenance.seconds is"),
        ("provenance versions", {"numpy": "2"}, "provenance.versions.torch is missing"),
        ("provenance versions", {"torch": "2", "cuda": []}, "provenance.versions.cuda is []"),
        ("provenance resumed", 5, "provenance.resumed is 5"),
        ("provenance more", nested(20), "nested more than 10 levels"),
        ("provenance more", nested(900), "nested more than 10 levels"),
        ("arrays", None, "arrays is None"),
        ("arrays sha256", 5, "arrays.sha256 is 5"),
        ("arrays file", None, "arrays.file is None"),
        ("sha256", None, "sha256 is None"),
    ],
)
def test_parts_that_no_record_has_are_named(store, place, value, said):
    def change(record):
        *way, last = (int(word) if word.isdigit() else word for word in place.split())
        for name in way:
            record = record[name]
        record[last] = value

    forge(store, BAD, change, stated=place != "sha256")
    assert said in only_the_bad_one_is_refused(store)


@pytest.mark.parametrize(
    "key", ["history", "confusion", "provenance", "arrays", "config", "recipe"]
)
def test_a_record_without_a_part_is_refused(store, key):
    forge(store, BAD, lambda record: record.pop(key))
    assert f"{key} is missing" in only_the_bad_one_is_refused(store)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\xff", b'{"a":' * 10**5, b"[" * 10**6, b"1" * 9**5]
)
def test_a_record_that_is_no_json_object_is_refused(store, content):
    (store.folder / f"{BAD.digest}.json").write_bytes(content)
    assert "JSON" in only_the_bad_one_is_refused(store)


def test_a_record_altered_anywhere_is_read_or_refused_in_a_sentence(store):
    """What is read then must do for a listing and for tables."""
    seed = random.randrange(10**6)
    chance, path = random.Random(seed), store.folder / f"{BAD.digest}.json"
    (store.folder / f"{GOOD}.json").unlink()
    good, counts = path.read_text(), {"read": 0, "refused": 0}
    values = [
        None,
        True,
        -1,
        7,
        10**30,
        1e300,
        0.5,
        "",
        "x",
        "\0",
        [],
        {},
        [[]],
        {"": None},
        [1, 2],
    ]
    for number in range(100):
        tried = f"seed {seed}, try {number}"
        record = json.loads(good)
        inside = chance.choice([record, record["provenance"], record["config"]])
        while True:
            key = chance.choice([*inside] if isinstance(inside, dict) else range(len(inside)))
            if not isinstance(inside[key], dict | list) or not inside[key] or chance.random() < 0.3:
                break
            inside = inside[key]
        likely = {str: "x", int: 7, float: 0.5}.get(type(inside[key]))  # else few are read
        inside[key] = likely if likely and chance.random() < 0.5 else chance.choice(values)
        path.write_text(good)
        forge(store, BAD, lambda _, to=record: to, stated=key != "sha256")
        (status,) = inventory.listing(store)["status"]
        try:
            found = store.get(BAD.digest)
        except StoreError as error:
            counts["refused"] += 1
            assert status in ("damaged", "newer") and "\n" not in str(error), tried
            continue
        counts["read"] += 1
        assert status != "damaged", tried
        for table in (tables.summary, tables.provenance, tables.per_class):
            table({"a": [found]})
    assert min(counts.values()) > 2, (seed, counts)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: [header],
        lambda header: header | {"provenance": [1]},
        lambda header: header | {"provenance": header["provenance"] | {"date": 5}},
        lambda header: header | {"provenance": header["provenance"] | {"threads": "2"}},
        lambda header: header | {"iterations": 5},
        lambda header: header | {"iterations": [0, 0, 0]},
        lambda header: header | {"iterations": ["3", "5", "10"]},
        lambda header: header | {"config": ["relu"]},
        lambda header: header | {"config": {"lr": [1]}},
        lambda header: header | {"seconds": {}},
        lambda header: header | {"format": "2"},
        lambda header: header | {"history": [[]]},
        lambda header: header | {"more": nested(100)},
        lambda header: {key: header[key] for key in header if key != "history"},
    ],
)
def test_a_checkpoint_whose_header_is_none_is_a_sentence(store, change):
    state = Checkpoint(store.folder / f"{BAD.digest}{SUFFIX}")
    state.save(torture.header_of(BAD, 3), {"w": torch.ones(2)})
    _, header, packed = state.path.read_bytes().split(b"\n", 2)
    content = json.dumps(change(json.loads(header))).encode() + b"\n" + packed
    state.path.write_bytes(torture.sha256(content) + b"\n" + content)
    table = inventory.listing(store)
    assert list(table["status"]) == ["complete"] * 2 + ["damaged"]
    assert f"{SUFFIX} is damaged: " in table["problem"].iloc[-1]
    assert state.started() == ""
    with pytest.warns(StoreWarning, match="is damaged: .* set aside"):
        assert state.load(torch.device("cpu")) is None


def test_a_checkpoint_that_unpacks_to_more_than_it_is_gets_refused(tmp_path):
    state = Checkpoint(tmp_path / f"{BAD.digest}{SUFFIX}")
    state.save(torture.header_of(BAD, 3), {"w": torch.zeros(2**20)})
    _, header, packed = state.path.read_bytes().split(b"\n", 2)
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(packed)) as good,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    content = header + b"\n" + buffer.getvalue()
    state.path.write_bytes(torture.sha256(content) + b"\n" + content)
    with pytest.warns(StoreWarning, match="its state is packed"):
        assert state.load(torch.device("cpu")) is None


def test_what_a_record_says_reaches_the_terminal_without_control_characters(own_store):
    store, evil = Store(shipped=None), "cpu\x1b]0;owned\x07\x1b[2J\u202e\r\n"
    versions = {"torch": evil, "\x1b[1m": "1"}
    provenance = BAD.provenance | {"device": evil, "versions": versions, "more": {"\x9b1m": evil}}
    forged = Run(**{**vars(BAD), "provenance": provenance})
    store.save(forged)
    state = Checkpoint(store.folder / f"{'0' * 12}{SUFFIX}")
    other = made_up_run(seed=5)
    state = Checkpoint(store.folder / f"{other.digest}{SUFFIX}")
    header = torture.header_of(other, 3)
    state.save(header | {"provenance": provenance}, {"w": torch.ones(2)})
    (store.folder / "x\x1b[2J.json").write_text("{}")
    for words in ([], ["show", BAD.digest], ["show", other.digest], ["export"]):
        done = CliRunner().invoke(cli, ["runs", *words])
        assert done.exit_code == 0
        controls = [c for c in done.output if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
        assert not controls, words
        assert r"cpu\x1b]0;owned" in done.output


def test_a_progress_line_has_no_control_characters(capsys):
    from labkit.core.log import say

    say("epoch", "recorded \x1b[2J2026")
    assert capsys.readouterr().out == "recorded \\x1b[2J2026\n"


@pytest.fixture
def labkit(monkeypatch):
    """The command as a terminal of some encoding shows it: exit code, output, errors."""

    def command(*words: str, encoding: str = "utf-8") -> tuple[int, bytes, bytes]:
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", ["labkit", *words])
            for name, stream in streams.items():
                patch.setattr(f"sys.{name}", stream)
            with pytest.raises(SystemExit) as ended:
                main()
        for stream in streams.values():
            stream.flush()
        return ended.value.code, *(stream.buffer.getvalue() for stream in streams.values())

    return command


def test_a_long_name_is_a_sentence(labkit):
    code, _, said = labkit("verify", "a" * 5000)
    assert code == 1 and len(said.splitlines()) == 1
    assert said.startswith(b"labkit: aaa") and said.endswith(b"File name too long.\n")


def test_names_that_no_record_has_are_not_looked_for(store, tmp_path):
    for name in ("a" * 5000, "../" + GOOD, f"{store.folder}/{GOOD}", "a\0b", ""):
        assert store.get(name) is None
        store.copy(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_with_too_long_a_name_is_a_sentence(labkit, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", "a" * 5000)
    code, _, said = labkit("runs")
    assert code == 1 and len(said.splitlines()) == 1
    assert b"no folder can have a name of 5,000 characters" in said


@pytest.mark.parametrize("words", [["runs"], ["verify"]])
def test_a_terminal_that_knows_only_ascii(words, labkit, own_store, tmp_path, monkeypatch):
    folder = own_store / "naïve – 7×7"
    Store(folder, shipped=None).save(BAD)
    (folder / "x.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABKIT_RUNS", str(folder))
    code, shown, _ = labkit(*words, encoding="ascii")
    assert code == (words == ["verify"])
    assert shown.isascii() and b"na\\xefve" in shown
