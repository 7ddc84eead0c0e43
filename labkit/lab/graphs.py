"""The loop of `train.py` in less time: on an NVIDIA GPU a step is one CUDA graph."""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from labkit.core import train
from labkit.core.config import Config
from labkit.core.data import Data
from labkit.core.network import own

WARM_UP = 3  # steps before a capture, in which libraries allocate what they keep


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, done: int = 0
) -> Iterator[Tensor]:
    """`train.fit`, as fast as the device allows; the same arguments, the same losses.

    On an NVIDIA GPU each step is a CUDA graph: one for whole batches, one for an epoch's short last
    batch. Where none can be captured, a warning says so and the plain loop trains. It trains a
    network of the user's own, too: what that does in Python a graph would do but once.
    """
    images, device = len(data.train), data.train.labels.device
    sizes = {min(config.batch_size, images), images % config.batch_size} - {0}
    graphs, reason = {}, ""
    if device.type == "cuda" and "fused" not in optimizer.defaults:
        # Only of the others is it known that what they make at their first step is zero there.
        reason = f"{type(optimizer).__name__} has no fused step"
    elif device.type == "cuda" and not own(config.model):
        try:
            graphs = capture(model, optimizer, data, config, sizes)
        except RuntimeError as error:
            reason = f"no CUDA graph could be captured ({str(error).splitlines()[0]})"
    elif device.type not in ("cpu", "cuda"):
        reason = f"{device.type} devices have no CUDA graphs"
    if reason:
        warnings.warn(
            f"{reason}; the plain loop trains, with the same numbers in more time.", stacklevel=2
        )
    for indices in train.batches(images, config, done, device):
        if graphs:
            graph, batch, loss = graphs[len(indices)]
            batch.copy_(indices)
            graph.replay()
            yield loss.clone()  # the next replay writes over it
        else:
            yield train.step(model, optimizer, data, config, indices)


@contextlib.contextmanager
def flushed_denormals(device: torch.device) -> Iterator[None]:
    """On a CPU let denormal numbers be zero: a step full of them takes ten times as long.

    The setting is each thread's own; those that share a tensor's work inherit it from the thread
    that first needs them, and keep denormals if they were there before.
    """
    torch.set_flush_denormal(device.type == "cpu")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def capture(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, sizes: set[int]
) -> dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]]:
    """For each batch size the graph of a `train.step`, the batch that it reads, and its loss.

    Model and optimizer are left with the values that they had.

    Raises:
        RuntimeError: the driver, or something in the step, does not allow it.
    """
    device = data.train.labels.device
    batches = {size: torch.arange(size, device=device) for size in sizes}
    graphs = {}
    with unchanged(model, optimizer):
        here, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for batch in batches.values():
                for _ in range(WARM_UP):
                    train.step(model, optimizer, data, config, batch)
        here.wait_stream(aside)
        pool = torch.cuda.graph_pool_handle()  # shared: the two never run at once
        for size, batch in batches.items():
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=aside):
                loss = train.step(model, optimizer, data, config, batch)
            graphs[size] = graph, batch, loss
    return graphs


@contextlib.contextmanager
def unchanged(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put back, in place, what the block changes of `model`, `optimizer` and the random generators;
    state that the optimizer makes in it becomes zero, from which it starts."""
    tensors = [*model.parameters(), *model.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    states = {
        parameter: {name: value.clone() for name, value in state.items()}
        for parameter, state in optimizer.state.items()
    }
    try:
        with torch.random.fork_rng([tensors[0].device] if tensors[0].is_cuda else []):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    known = states.get(parameter, {}).get(name)
                    value.zero_() if known is None else value.copy_(known)
