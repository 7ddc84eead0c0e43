"""The random numbers of a training, apart from everyone else's.

Modules such as dropout draw from torch's global generators. A training has generators of its own,
which take the place of the global ones during each step, so that what it draws depends on its seed
alone: not on what else runs in the process, nor on how often the training was interrupted.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor


def generators(seed: int, device: torch.device, *what: int) -> list[Generator]:
    """A generator for the CPU, and one for `device` if it is another.

    Their seed is made from `seed`: weights and order are drawn with `seed` itself, and the same
    numbers must not come again. By default they are a training's; `what` tells others apart.
    """
    mixed = int(np.random.SeedSequence([seed, *(what or (1,))]).generate_state(1, np.uint64)[0])
    devices = dict.fromkeys([torch.device("cpu"), device])
    return [Generator(where).manual_seed(mixed) for where in devices]


def drawing_from(own: list[Generator], steps: Iterator[Tensor]) -> Iterator[Tensor]:
    """Iterate over `steps`; each is made with `own` as the global generators."""
    while True:
        with in_use(own):
            loss = next(steps, None)
        if loss is None:
            return
        yield loss


@contextlib.contextmanager
def in_use(own: list[Generator]) -> Iterator[None]:
    """Make `own` the global generators of their devices within the block."""
    pairs = [(generator, _global(generator.device)) for generator in own]
    for pair in pairs:
        _swap(*pair)
    try:
        yield
    finally:
        for pair in pairs:
            _swap(*pair)


def states(own: list[Generator]) -> dict[str, Tensor]:
    """Device type → state, uint8, for a checkpoint."""
    return {generator.device.type: generator.get_state() for generator in own}


def restore(own: list[Generator], saved: dict[str, Tensor]) -> None:
    """Go on from `states`; a device that they do not have starts from its seed."""
    for generator in own:
        if generator.device.type in saved:
            generator.set_state(saved[generator.device.type].cpu())


def _global(device: torch.device) -> Generator:
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    on_mps = device.type == "mps"
    return torch.mps._get_default_mps_generator() if on_mps else torch.default_generator


def _swap(one: Generator, other: Generator) -> None:
    if one.device.type == "cuda":
        # A CUDA graph draws from the state that it was captured with: the state itself changes
        # hands here, not its value.
        mine, theirs = one.graphsafe_get_state(), other.graphsafe_get_state()
        one.graphsafe_set_state(theirs)
        other.graphsafe_set_state(mine)
    else:
        mine, theirs = one.get_state(), other.get_state()
        one.set_state(theirs)
        other.set_state(mine)
