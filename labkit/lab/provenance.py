"""What trains a run, where and from which commit: the part of its record that is no number."""

import functools
import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from labkit.core.version import __version__


def provenance(device: torch.device) -> dict[str, Any]:
    """What runs, where and when; a run's last bits depend on device, processor, threads and
    versions, besides its config, data and recipe."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    packages = ("torch", "torchvision", "numpy")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": f"{device.type} ({name})",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "labkit": __version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
            **(cuda_versions() if device.type == "cuda" else {}),
        },
    }


def processor() -> str:
    """The CPU's model where the system tells it, and the instruction set that torch uses of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def cuda_versions() -> dict[str, str]:
    """The versions of the libraries that compute on an NVIDIA GPU."""
    return {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}


def resumed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The provenance of a training that began as `before` and goes on as `now`."""
    return before | {"resumed": [*before.get("resumed", []), now]}


@functools.cache
def commit() -> str:
    """The commit of this checkout, with "+" if files differ from it; "" outside a checkout."""

    def git(*words: str) -> str:
        package = Path(__file__).parent.parent
        done = subprocess.run(
            ["git", *words], cwd=package, capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short=10", "HEAD")
        return found + ("+" if found and git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
