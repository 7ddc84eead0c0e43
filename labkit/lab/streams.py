"""The random numbers of a training, apart from everyone else's.

Modules such as dropout draw from torch's global generators. A training has generators of its own,
put in place of the global ones for each step, so that what it draws depends on its seed alone:
whatever else runs in the process, and however often the training was interrupted.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor


def generators(seed: int, device: torch.device) -> list[Generator]:
    """Those of a training with this seed on `device`: the CPU's, and the device's if it is another.

    Weights and order are drawn with the seed itself; these have one that is made from it, since
    the same numbers would come again.
    """
    mixed = int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0])
    devices = dict.fromkeys([torch.device("cpu"), device])
    return [Generator(where).manual_seed(mixed) for where in devices]


def drawing_from(own: list[Generator], steps: Iterator[Tensor]) -> Iterator[Tensor]:
    """Iterate over `steps`; while one is made `own` are the global generators."""
    while True:
        with in_use(own):
            loss = next(steps, None)
        if loss is None:
            return
        yield loss


@contextlib.contextmanager
def in_use(own: list[Generator]) -> Iterator[None]:
    """Make `own` the global generators of their devices; afterwards these are as they were."""
    everyones = [_default(generator.device) for generator in own]
    before = [_state(generator) for generator in everyones]
    for generator, mine in zip(everyones, own, strict=True):
        _become(generator, _state(mine))
    try:
        yield
    finally:
        for generator, mine, state in zip(everyones, own, before, strict=True):
            _become(mine, _state(generator))
            _become(generator, state)


def states(own: list[Generator]) -> dict[str, Tensor]:
    """Device type → state, uint8, for a checkpoint."""
    return {generator.device.type: generator.get_state() for generator in own}


def restore(own: list[Generator], saved: dict[str, Tensor]) -> None:
    """Go on from `states`; on a device that they do not know of, from the start."""
    for generator in own:
        if generator.device.type in saved:
            generator.set_state(saved[generator.device.type].cpu())


def _default(device: torch.device) -> Generator:
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return (
        torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator
    )


# A CUDA graph draws from the state that it was captured with: there the state itself changes hands,
# not its value.


def _state(generator: Generator) -> Generator | Tensor:
    on_gpu = generator.device.type == "cuda"
    return generator.graphsafe_get_state() if on_gpu else generator.get_state()


def _become(generator: Generator, state: Generator | Tensor) -> None:
    if isinstance(state, Generator):
        generator.graphsafe_set_state(state)
    else:
        generator.set_state(state)
