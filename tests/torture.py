"""Real processes killed at random moments, files damaged at random places, processes that race.

The suite does a few of each; this does many, and says how many and what came of them:

    python tests/torture.py --kills 100 --damages 1000 --races 20
"""

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
from pathlib import Path

import click
import numpy as np
import torch

from labkit import checkpoint, data, experiment, model
from labkit.checkpoint import SUFFIX, Checkpoint
from labkit.config import Config
from labkit.data import Data, Split
from labkit.runs import Run
from labkit.store import ARRAYS, DamagedError, Store, StoreWarning, load

#: 120 images in batches of 20: six iterations an epoch, thirty in all.
CONFIG = Config(batch_size=20, epochs=5, lr=0.001)
LOAD, PREDICT, REPLACE = data.load, experiment.predict, os.replace
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def small_data() -> Data:
    """120 training and 50 test images of mnist-5k."""
    whole = LOAD("mnist-5k")
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(1))[:120]
    train = Split(whole.train.images[order], whole.train.labels[order])
    test = Split(whole.test.images[::20], whole.test.labels[::20])
    return Data("mnist-5k", train, test, whole.mean, whole.std, whole.sha256)


def dropping() -> torch.nn.Module:
    """An activation with which a training needs its random stream."""
    return torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.1))


def train_here(folder: Path) -> Run:
    """The run of `CONFIG` on the small data, with a checkpoint at every iteration.

    Writes the weights' SHA-256 at every evaluation, so that the last one is the trained network's.
    """
    small = small_data()

    def watched(network: torch.nn.Module, *rest: object) -> object:
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        folder.with_suffix(".weights").write_text(digest.hexdigest())
        return PREDICT(network, *rest)

    def slow(*paths: Path) -> None:  # so that more kills hit it
        time.sleep(0.02)
        REPLACE(*paths)

    data.load = lambda name: small
    experiment.predict, os.replace = watched, slow
    model.ACTIVATION_MODULES["relu"] = dropping
    checkpoint.EVERY, checkpoint.OVERHEAD = 0.0, 1e9
    print("ready", flush=True)
    return experiment.run(CONFIG, device="cpu", store=Store(folder, shipped=None))


def start(folder: Path) -> subprocess.Popen[str]:
    """A process of its own that does `train_here`, as soon as it has loaded everything."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--child", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    return child


def finish(child: subprocess.Popen[str]) -> str:
    """Everything that the process said; it must have ended well."""
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    assert "damaged" not in err, err
    return out


def same(run: Run, other: Run) -> bool:
    """Whether two runs have the same numbers to the last bit, times aside."""
    return (
        all(getattr(run, name).tobytes() == getattr(other, name).tobytes() for name in ARRAYS)
        and run.history.drop(columns="seconds").equals(other.history.drop(columns="seconds"))
        and all(np.array_equal(run.confusion[s], other.confusion[s]) for s in ("train", "test"))
    )


def reference(folder: Path) -> tuple[Run, str, float]:
    """The run without interruption, its weights' SHA-256, and the seconds it took."""
    start_time = time.monotonic()
    finish(start(folder))
    return find(folder), folder.with_suffix(".weights").read_text(), time.monotonic() - start_time


def find(folder: Path) -> Run | None:
    return Store(folder, shipped=None).find(CONFIG, data.checksum("mnist-5k"))


def kill(folder: Path, kills: int, chance: random.Random) -> Counter[str]:
    """Kill a training again and again at random moments, and start it again.

    Each completed run must equal the one that was never interrupted, weights included; then the
    next one begins. After each kill what is on disk must be whole.
    """
    whole, weights, _ = reference(folder / "reference")
    counts: Counter[str] = Counter()
    number = 0
    while counts["kills"] < kills:
        number += 1
        own = folder / f"run{number}"
        before = 0
        while True:
            child = start(own)
            time.sleep(chance.uniform(0, 4))
            if child.poll() is None and counts["kills"] < kills:
                chosen = chance.choice(SIGNALS)
                child.send_signal(chosen)
                child.communicate(timeout=60)
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
        assert same(found, whole), "the numbers differ from those of a run without interruption"
        assert own.with_suffix(".weights").read_text() == weights
        counts["resumed"] += len(found.provenance.get("resumed", []))
        counts["runs completed"] += 1
        left = [path.name for path in own.iterdir() if path.name != ".locks"]
        assert len(left) == 2, left  # the record and its arrays, nothing else
        shutil.rmtree(own)
    return counts


def files(folder: Path) -> list[Path]:
    """The checkpoints in a folder of runs."""
    return [path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")]


def race(folder: Path, races: int, chance: random.Random) -> Counter[str]:
    """Two processes want the same run, in every second race the one that trains is killed."""
    whole, weights, _ = reference(folder / "reference")
    counts: Counter[str] = Counter()
    for number in range(races):
        own = folder / f"race{number}"
        pair = [start(own), start(own)]
        if number % 2:
            time.sleep(chance.uniform(0.2, 4))
            victim = chance.choice(pair)
            if victim.poll() is None:
                victim.kill()
                victim.communicate()
                pair.remove(victim)
                counts["killed in a race"] += 1
        said = [finish(child) for child in pair]
        trained = sum("Train Epoch: 4" in words for words in said)
        assert trained <= 1, said
        assert trained == 1 or len(pair) == 1, said
        counts["waited"] += sum("waiting until it is done" in words for words in said)
        counts["races"] += 1
        assert same(find(own), whole) and own.with_suffix(".weights").read_text() == weights
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


def damage(folder: Path, run: Run, times: int, chance: random.Random) -> Counter[str]:
    """Damage the record, its arrays or a checkpoint at random; no wrong number may come back."""
    store = Store(folder / "store", shipped=None)
    store.save(run)
    record = store.folder / f"{run.digest}.json"
    (arrays,) = store.folder.glob("*.npz")
    state = Checkpoint(store.folder / f"{run.digest}{SUFFIX}")
    weights = {"weights": torch.randn(300)}
    identity = {"config": run.config.to_dict(), "recipe": 1, "data_sha256": run.data_sha256}
    state.save(identity, weights)
    good = {path: path.read_bytes() for path in (record, arrays, state.path)}
    counts: Counter[str] = Counter()
    for _ in range(times):
        victim = chance.choice(list(good))
        counts[harm(victim, chance)] += 1
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if victim == state.path:
                found = state.load(torch.device("cpu"))
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


@click.command()
@click.option("--kills", default=100)
@click.option("--damages", default=1000)
@click.option("--races", default=20)
@click.option("--seed", default=0)
@click.option("--child", type=click.Path(path_type=Path), hidden=True)
def main(kills: int, damages: int, races: int, seed: int, child: Path | None) -> None:
    """Kill, damage and race; says how often, and fails if anything was lost."""
    if child:
        train_here(child)
        return
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("kills:", json.dumps(kill(folder / "kills", kills, chance)), flush=True)
        print("races:", json.dumps(race(folder / "races", races, chance)), flush=True)
        whole = find(folder / "kills" / "reference")
        print("damages:", json.dumps(damage(folder, whole, damages, chance)), flush=True)
    print("Nothing was lost, and no number was wrong.")


if __name__ == "__main__":
    main()
