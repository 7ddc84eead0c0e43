"""Real processes killed at random moments, files damaged at random places, processes that race.

An attack is a function of a folder to work in, how often, and what to draw from; it counts what it
did, and fails if anything was lost or wrong. The suite does a few of each; this does many, and says
how many and what came of them:

    python tests/benchmarks/torture.py --kills 100 --damages 1000 --races 20
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import psutil
import torch

from labkit.core import data, model
from labkit.core.config import Config
from labkit.core.data import Data, Split
from labkit.lab import experiment, state, task, worker, workers
from labkit.store import checkpoint
from labkit.store.checkpoint import SUFFIX, Checkpoint
from labkit.store.folder import Store, StoreWarning
from labkit.store.record import DamagedError, load
from labkit.store.run import ARRAYS, Run

#: 40 images in batches of 16, the last one short: three iterations per epoch, nine in all.
IMAGES = 40
CONFIG = Config(batch_size=16, epochs=3, lr=0.001)
#: What `run_all` is asked for: two runs of six iterations, both at once.
SEEDS = {"a": CONFIG.replace(epochs=2)}, 2
LOAD, PREDICT, REPLACE = data.load, state.predict, os.replace
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 300  # seconds for what takes one on a machine with nothing else to do


def small_data(images: int = 120) -> Data:
    """So many training images of mnist-5k, and 50 test images."""
    whole = LOAD("mnist-5k")
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(1))[:images]
    train = Split(whole.train.images[order], whole.train.labels[order])
    test = Split(whole.test.images[::20], whole.test.labels[::20])
    return dataclasses.replace(whole, train=train, test=test)


def dropping() -> torch.nn.Module:
    """An activation with which a training needs its random stream."""
    return torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.1))


def prepare(folder: Path, seconds: float) -> None:
    """Let this process train on the small data, with a checkpoint every so many seconds.

    Writes the weights' SHA-256 at every evaluation, so that the last one is the trained network's.
    """
    small = small_data(IMAGES)

    def watched(
        network: torch.nn.Module, twin: torch.nn.Module, data: Data, config: Config, whole: bool
    ) -> object:
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        weights_of(folder, config.seed).write_text(digest.hexdigest())
        return PREDICT(network, twin, data, config, whole)

    def slow(*paths: Path) -> None:  # so that more kills hit it
        time.sleep(0.02)
        REPLACE(*paths)

    data.load = lambda name: small
    state.predict, os.replace = watched, slow
    model.ACTIVATION_MODULES["relu"] = dropping
    checkpoint.EVERY, checkpoint.OVERHEAD = seconds, 1e9
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it


def weights_of(folder: Path, seed: int = 0) -> Path:
    """Where the weights' SHA-256 stands of a run that is kept in `folder`."""
    return folder.with_name(f"{folder.name}-{seed}.weights")


def train_here(folder: Path, seconds: float = 0.0) -> Run:
    """The run of `CONFIG`; see `prepare`."""
    prepare(folder, seconds)
    print("ready", flush=True)
    return experiment.run(CONFIG, device="cpu", store=Store(folder, shipped=None))


def train_all_here(folder: Path, seconds: float) -> None:
    """The runs of `SEEDS`, each in a process that does `train_one_of_all_here`."""
    prepare(folder, seconds)
    workers.WORTH = 0
    task.COMMAND = command("one", folder, seconds)
    torch.set_num_threads(2)
    print("ready", flush=True)
    settings, seeds = SEEDS
    experiment.run_all(settings, seeds=seeds, device="cpu", store=Store(folder, shipped=None))


def train_one_of_all_here(folder: Path, seconds: float) -> None:
    prepare(folder, seconds)
    worker.child()


def command(what: str, folder: Path, seconds: float) -> list[str]:
    return [sys.executable, __file__, "--child", what, str(folder), str(seconds)]


def start(folder: Path, what: str = "run", seconds: float = 0.0) -> subprocess.Popen[str]:
    """A process of its own that trains `CONFIG`, or with `what` "all" `SEEDS`, as soon as it has
    loaded everything."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(command(what, folder, seconds), text=True, **pipes)
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    return child


def finish(child: subprocess.Popen[str]) -> str:
    """Everything that the process said; it must have ended well."""
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    assert "damaged" not in err, err
    return out


def same(run: Run, other: Run) -> bool:
    """Whether two runs have the same numbers to the last bit, times aside."""
    return (
        all(getattr(run, name).tobytes() == getattr(other, name).tobytes() for name in ARRAYS)
        and {name: array.tobytes() for name, array in run.measures.items()}
        == {name: array.tobytes() for name, array in other.measures.items()}
        and run.history.drop(columns="seconds").equals(other.history.drop(columns="seconds"))
        and run.confusion.keys() == other.confusion.keys()
        and all(np.array_equal(run.confusion[s], other.confusion[s]) for s in run.confusion)
    )


def uninterrupted(folder: Path, what: str) -> float:
    """Train to the end, see `start`; the seconds that it took."""
    child = start(folder, what)
    start_time = time.monotonic()
    finish(child)
    return time.monotonic() - start_time


class Reference(NamedTuple):
    """Runs without interruption, each with its weights' SHA-256, and the seconds they took."""

    runs: list[tuple[Run, str]]
    seconds: float


def reference(folder: Path) -> Reference:
    """The run of `CONFIG`."""
    seconds = uninterrupted(folder, "run")
    return Reference([(find(folder), weights_of(folder).read_text())], seconds)


def find(folder: Path, config: Config = CONFIG) -> Run | None:
    return Store(folder, shipped=None).find(config, data.checksum("mnist-5k"))


def kill(folder: Path, kills: int, chance: random.Random, whole: Reference) -> Counter[str]:
    """Kill a training again and again at random moments, and start it again.

    Each completed run must equal the one that was never interrupted, weights included; then the
    next one begins. After each kill what is on disk must be whole.
    """
    ((run, weights),), seconds = whole
    counts: Counter[str] = Counter()
    while counts["kills"] < kills:
        own = folder / f"run{counts['runs completed']}"
        before = 0
        while True:
            child = start(own)
            if counts["kills"] < kills and wait(child, chance.uniform(0, seconds)):
                chosen = chance.choice(SIGNALS)
                child.send_signal(chosen)
                child.communicate(timeout=PATIENCE)
                counts["kills"] += 1
                counts[chosen.name] += 1
                assert not list(own.glob("*.damaged-*"))
                find(own)  # raises if a record is there and not whole
                done = (checkpoint.read_header(path)["iterations"][0] for path in files(own))
                reached = max(done, default=before)
                assert reached >= before or find(own), "work was lost"
                before = reached
                continue
            finish(child)
            break
        found = find(own)
        assert same(found, run), "the numbers differ from those of a run without interruption"
        assert weights_of(own).read_text() == weights
        counts["resumed"] += len(found.provenance.get("resumed", []))
        counts["runs completed"] += 1
        left = [path.name for path in own.iterdir() if path.name != ".locks"]
        assert len(left) == 2, left  # the record and its arrays, nothing else
        shutil.rmtree(own)
    return counts


def wait(child: subprocess.Popen[str], seconds: float) -> bool:
    """Wait so long for the process; whether it still runs then."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    return child.poll() is None


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def header_of(run: Run, done: int, iterations: int = 5) -> dict[str, object]:
    """The header of a checkpoint of `run` after `done` steps, `iterations` an epoch."""
    return {
        "recipe": 1,
        "config": run.config.to_dict(),
        "data_sha256": run.data_sha256,
        "provenance": run.provenance,
        "iterations": [done, iterations, iterations * run.config.epochs],
        "history": run.history[: done // iterations].to_dict("records"),
        "seconds": 1.5,
        "epoch_seconds": 0.5,
    }


def of_all(folder: Path) -> list[tuple[Run | None, str]]:
    """The runs of `SEEDS` that are kept in `folder`, each with its weights' SHA-256."""
    settings, seeds = SEEDS
    configs = [config.replace(seed=seed) for config in settings.values() for seed in range(seeds)]
    paths = [weights_of(folder, config.seed) for config in configs]
    weights = [path.read_text() if path.exists() else "" for path in paths]
    return list(zip([find(folder, config) for config in configs], weights, strict=True))


def reference_of_all(folder: Path) -> Reference:
    """The runs of `SEEDS`."""
    seconds = uninterrupted(folder, "all")
    return Reference(of_all(folder), seconds)


def all_same(folder: Path, whole: Reference) -> bool:
    """Whether `folder` keeps the same runs, and nothing besides."""
    left = [path.name for path in folder.iterdir() if path.name != ".locks"]
    assert len(left) == 2 * len(whole.runs), left  # the records and their arrays
    pairs = zip(of_all(folder), whole.runs, strict=True)
    return all(same(run, other) and digest == wanted for (run, digest), (other, wanted) in pairs)


def kill_all(folder: Path, kills: int, chance: random.Random, whole: Reference) -> Counter[str]:
    """Kill `run_all`, or a process in which it trains, at random moments, and call it again.

    Half of the calls write a checkpoint at every iteration, half write none. All runs must equal
    those of a call that was never interrupted, whichever were missing when it was called again.
    """
    counts: Counter[str] = Counter()
    while counts["kills"] < kills:
        own = folder / f"runs{counts['calls completed']}"
        while True:
            parent = start(own, "all", chance.choice([0.0, 1e9]))
            if not killed(parent, whole.seconds / 2, kills, counts, chance):
                break
            assert_no_orphans(own)
            assert not list(own.glob("*.damaged-*"))
            missing = [run for run, _ in of_all(own) if run is None]  # raises if one is not whole
            counts[f"{len(missing)} runs missing"] += 1
        assert all_same(own, whole), "the numbers differ from those of a call without interruption"
        counts["calls completed"] += 1
        shutil.rmtree(own)
    return counts


def killed(
    parent: subprocess.Popen[str],
    seconds: float,
    kills: int,
    counts: Counter[str],
    chance: random.Random,
) -> bool:
    """Kill children of `parent`, one within so many seconds, and at last itself; False if it was
    done before that."""
    while True:
        if counts["kills"] >= kills or not wait(parent, chance.uniform(0, seconds)):
            finish(parent)
            return False
        victim = chance.choice([parent, *children(parent)])
        chosen = chance.choice(SIGNALS)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(chosen)
            counts["kills"] += 1
            counts["of parents" if victim is parent else "of children"] += 1
        if victim is parent:
            parent.communicate(timeout=PATIENCE)
            return True


def children(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes in which it trains; none if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(parent.pid).children()
    return []


def assert_no_orphans(folder: Path) -> None:
    """All processes that were started to train into `folder` end."""
    found = psutil.process_iter(["cmdline"])
    ours = [process for process in found if str(folder) in (process.info["cmdline"] or [])]
    _, alive = psutil.wait_procs(ours, timeout=PATIENCE)
    assert not alive, f"orphans: {alive}"


def files(folder: Path) -> list[Path]:
    """The checkpoints in a folder of runs."""
    return [path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")]


def race(folder: Path, races: int, chance: random.Random, whole: Reference) -> Counter[str]:
    """Two processes want the same run; in every second race one of them is killed."""
    ((run, weights),), seconds = whole
    counts: Counter[str] = Counter()
    last_line = f"Train Epoch: {CONFIG.epochs - 1}"
    for number in range(races):
        own = folder / f"race{number}"
        pair = [start(own, seconds=0.0 if number % 2 else 1e9) for _ in range(2)]
        if number % 2:
            victim = chance.choice(pair)
            if wait(victim, chance.uniform(0, seconds)):
                victim.kill()
                victim.communicate()
                pair.remove(victim)
                counts["killed in a race"] += 1
        said = [finish(child) for child in pair]
        trained = sum(last_line in words for words in said)
        assert trained <= 1, said
        assert trained == 1 or len(pair) == 1, said
        counts["waited"] += sum("waiting until it is done" in words for words in said)
        counts["races"] += 1
        assert same(find(own), run) and weights_of(own).read_text() == weights
        shutil.rmtree(own)
    return counts


def harm(path: Path, chance: random.Random) -> str:
    """Damage a file in one of five ways; the name of the way."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    way = chance.choice(["flip a bit", "change a byte", "cut", "empty", "zeros"])
    if way == "flip a bit":
        content[place] ^= 1 << chance.randrange(8)
    elif way == "change a byte":
        content[place] = (content[place] + chance.randrange(1, 256)) % 256
    elif way == "cut":
        del content[place:]
    elif way == "empty":
        content.clear()
    else:
        end = place + chance.randrange(1, 200)
        content[place:end] = bytes(len(content[place:end]))
    path.write_bytes(content)
    return way


def damage(folder: Path, times: int, chance: random.Random, run: Run) -> Counter[str]:
    """Damage the record, its arrays or a checkpoint at random; no wrong number may come back."""
    store = Store(folder / "store", shipped=None)
    store.save(run)
    record = store.folder / f"{run.digest}.json"
    (arrays,) = store.folder.glob("*.npz")
    saved = Checkpoint(store.folder / f"{run.digest}{SUFFIX}")
    weights = {"weights": torch.randn(300)}
    saved.save(header_of(run, 1), weights)
    good = {path: path.read_bytes() for path in (record, arrays, saved.path)}
    counts: Counter[str] = Counter()
    for _ in range(times):
        victim = chance.choice(list(good))
        counts[harm(victim, chance)] += 1
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if victim == saved.path:
                found = saved.load(torch.device("cpu"))
                assert found is None or torch.equal(found[1]["weights"], weights["weights"])
                noticed = found is None
                assert noticed == any(issubclass(w.category, StoreWarning) for w in said)
            else:
                try:
                    noticed = not same(load(record), run)
                    assert not noticed, "a wrong number came back"
                except DamagedError:
                    noticed = True
        counts["noticed" if noticed else "harmless"] += 1
        for path, content in good.items():
            path.write_bytes(content)
        for aside in store.folder.glob("*.damaged-*"):
            aside.unlink()
    return counts


#: What a process of its own does.
PARTS = {"run": train_here, "all": train_all_here, "one": train_one_of_all_here}


@click.command()
@click.option("--kills", default=100)
@click.option("--damages", default=1000)
@click.option("--races", default=20)
@click.option("--alterations", default=200)
@click.option("--seed", default=0)
@click.option("--child", type=(click.Choice(list(PARTS)), Path, float), hidden=True)
def main(
    kills: int,
    damages: int,
    races: int,
    alterations: int,
    seed: int,
    child: tuple[str, Path, float] | None,
) -> None:
    """Kill, damage, race and alter; says how often, and fails if anything was lost or not noticed.

    Half of the kills hit `run`, half `run_all` and its processes.
    """
    if child:
        what, folder, seconds = child
        PARTS[what](folder, seconds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def do(what: str, attack: Callable[..., Counter[str]], times: int, *on: object) -> None:
            start_time = time.monotonic()
            counts = attack(folder / what, times, random.Random(f"{seed} {what}"), *on)
            taken = f"{time.monotonic() - start_time:.0f} s"
            print(f"{what}, {times} in {taken}:", json.dumps(counts), flush=True)

        print(f"seed {seed}", flush=True)
        whole = reference(folder / "run")
        do("kills of run", kill, kills - kills // 2, whole)
        do("kills of run_all", kill_all, kills // 2, reference_of_all(folder / "run_all"))
        do("races", race, races, whole)
        do("damages", damage, damages, whole.runs[0][0])
        from alterations import alter  # here, since the others need nothing of what it imports

        do("alterations", alter, alterations)
    print("Nothing was lost, and no number was wrong.")


if __name__ == "__main__":
    main()
