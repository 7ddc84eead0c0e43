"""`run` and `run_all`: from a config to a run, recorded or trained; where all the parts meet."""

import functools
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import labkit
from labkit import data as datasets
from labkit import model as models
from labkit import progress
from labkit.config import Config, ConfigError, flag, seed_range
from labkit.evaluate import NO_ANSWERS, Predictions, evaluate
from labkit.runs import Run, Store
from labkit.train import fit


def run(
    config: Config,
    *,
    device: str = "auto",
    retrain: bool | str = False,
    log: str = "epoch",
    store: Store | None = None,
) -> Run:
    """The run of `config`: read from the store, or trained on `device` and kept there.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        retrain: train even if the run is recorded; the new run takes the old one's place. A date
            and time (ISO 8601, UTC) means: if it was recorded before then.
        log: `epoch` for a line an epoch (in JupyterLab a live curve), `iteration` for the
            original's line an iteration, `none` for silence.
        store: where runs are kept; by default this user's.

    Raises:
        LabkitError: the device, the data or the store is not to be had.
    """
    store = store or Store()
    where = datasets.find_device(device)
    sha256 = datasets.checksum(config.dataset)
    before = retrain_before(retrain)
    found = store.find(config, sha256) if before != ALWAYS else None
    if found and found.provenance["date"] >= before:
        progress.say(log, f"{config.describe()}: recorded {found.provenance['date'][:10]}")
        return found
    store.check_writable()
    data = datasets.load(config.dataset)
    trained = train_run(config, data.to(where), log)
    store.save(trained)
    return trained


def run_all(
    settings: Mapping[str, Config], *, seeds: int | Iterable[int] = 1, **options: Any
) -> dict[str, list[Run]]:
    """The runs of every setting with every seed: label → runs, in the order of the seeds.

    `seeds` is how many (the seeds 0, 1, ...) or which. `options` are those of `run`.
    """
    chosen = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else None
    chosen = chosen or list(seed_range(seeds))
    return {
        label: [run(config.replace(seed=seed), **options) for seed in chosen]
        for label, config in settings.items()
    }


HISTORY = ["epoch", "loss", "train_accuracy", "test_accuracy", "seconds"]
ALWAYS = "9999"  # later than any date: every recorded run is trained again


def retrain_before(retrain: bool | str) -> str:
    """The date before which recorded runs are trained again, as ISO text that can be compared.

    Raises:
        ConfigError: neither true, false nor a date.
    """
    try:
        if isinstance(retrain, str):
            date = datetime.fromisoformat(retrain.strip())
            return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC).isoformat()
    except ValueError:
        pass
    try:
        return ALWAYS if flag("retrain", retrain) else ""
    except ConfigError:
        raise ConfigError(
            f"retrain is {retrain!r}; it must be true, false or a date as 2026-11-30T18:00."
        ) from None


def train_run(config: Config, data: datasets.Data, log: str = "none") -> Run:
    """Train and evaluate `config` on `data`, on the device where the data lies; keeps nothing.

    A loss that is not finite ends the training; the run then says where it diverged, and has no
    answers.
    """
    start = time.perf_counter()
    device = data.train.labels.device
    origin = provenance(device)  # now: the files may change while it trains
    iterations = -(-len(data.train) // config.batch_size)
    losses = torch.full((config.epochs, iterations), torch.nan, device=device)
    history, answers = [], {}
    # Deterministic kernels make one seed give one result on a GPU too.
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        model = models.build(config).to(device)
        steps = progress.track(fit(model, data, config), config, iterations, log)
        epoch_start = time.perf_counter()
        for epoch, iteration, loss in steps:
            losses[epoch, iteration] = loss
            last = iteration == iterations - 1
            # Looking at a loss waits for the device: on a GPU once an epoch is enough.
            look = last or device.type == "cpu"
            if look and not losses[epoch, : iteration + 1].isfinite().all():
                progress.say(log, f"{config.describe()}: diverged in epoch {epoch}")
                answers = dict.fromkeys(("train", "test"), NO_ANSWERS)
                break
            if last:
                row = {"epoch": epoch, "loss": losses[epoch].cpu().double().mean().item()}
                row["seconds"] = time.perf_counter() - epoch_start
                if config.epoch_accuracy or epoch == config.epochs - 1:
                    for split in ("train", "test"):
                        answers[split] = predict(model, data, split, config)
                        row[f"{split}_accuracy"] = answers[split].accuracy()
                history.append(row)
                epoch_start = time.perf_counter()
    kept = losses.cpu().numpy()
    lost = ~np.isfinite(kept.ravel())
    kept.ravel()[lost.argmax() if lost.any() else kept.size :] = np.nan
    rows = pd.DataFrame(history, columns=HISTORY, dtype=float).reindex(range(config.epochs))
    return Run(
        config=config,
        data_sha256=data.sha256,
        iteration_loss=kept,
        history=rows.assign(epoch=range(config.epochs)),
        confusion={split: predictions.confusion() for split, predictions in answers.items()},
        test_labels=answers["test"].labels,
        test_predicted=answers["test"].predicted,
        test_confidence=answers["test"].confidence,
        provenance=origin | {"seconds": round(time.perf_counter() - start, 2)},
    )


def predict(model: torch.nn.Module, data: datasets.Data, split: str, config: Config) -> Predictions:
    """`evaluate` for the split "train" or "test" of `data`."""
    return evaluate(model, data, getattr(data, split), config.normalization)


def provenance(device: torch.device) -> dict[str, Any]:
    """What runs, where and when."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    packages = ("torch", "torchvision", "numpy")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "labkit": labkit.__version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
    }


@functools.cache
def commit() -> str:
    """The commit of this checkout, with "+" if files differ from it; "" outside a checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short=10", "HEAD")
        return found + ("+" if found and git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
