"""What trains a run, where and from which commit."""

import functools
import importlib.metadata
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.core.version import __version__

if TYPE_CHECKING:
    import torch


def provenance(device: "torch.device") -> dict[str, Any]:
    """What runs, where and when; a run's last bits depend on device, processor, threads and
    versions, besides its config, data and training version."""
    import torch  # here, since a report needs no more than the commit

    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.machine()
    versions = {"labkit": __version__, "python": platform.python_version()}
    versions |= {p: importlib.metadata.version(p) for p in ("torch", "torchvision", "numpy")}
    if on_gpu:
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": f"{device.type} ({name})",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
    }


def processor() -> str:
    """The CPU's model where the system tells it, and the instruction set that torch uses of it."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


@functools.cache
def commit() -> str:
    """The commit of this checkout, with "+" if files differ from it; "" outside a checkout."""
    found = _git("rev-parse", "--short=10", "HEAD")
    return found + ("+" if found and _git("status", "--porcelain", "--", ".") else "")


def commit_address() -> str:
    """Where the commit of this checkout can be read on the web; "" if its origin is not there, or
    does not have it as far as this checkout knows."""
    origin = re.sub(
        r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", _git("remote", "get-url", "origin")
    )
    origin = re.sub(r"//[^/]*@", "//", origin)  # without a name or a token
    known = origin.startswith("https://") and _git("branch", "--remotes", "--contains", "HEAD")
    return f"{origin.removesuffix('.git')}/commit/{_git('rev-parse', 'HEAD')}" if known else ""


def _git(*words: str) -> str:
    """What git says of the checkout that this file is in; "" if there is none, or no git."""
    options = {"cwd": Path(__file__).parent.parent, "capture_output": True, "text": True}
    try:
        done = subprocess.run(["git", *words], timeout=10, **options)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
