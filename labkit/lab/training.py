"""`training_steps`: one run trained and measured, with its checkpoints; knows of no store."""

import contextlib
from collections.abc import Generator, Iterator

import torch

from labkit.core.config import Config
from labkit.core.data import Data
from labkit.core.device import DeviceError
from labkit.core.log import say
from labkit.core.network import called
from labkit.lab import progress
from labkit.lab.graphs import flushed_denormals
from labkit.lab.slim import left
from labkit.lab.state import TrainingState
from labkit.store.checkpoint import Checkpoint
from labkit.store.run import Run

#: Trains while it is iterated over, pauses after every iteration, and returns its run.
Steps = Generator[None, None, Run]


def training_steps(
    config: Config,
    data: Data,
    device: torch.device,
    log: str = "none",
    checkpoint: Checkpoint | None = None,
) -> Steps:
    """Train and evaluate `config` on `data` on `device`; keeps nothing but `checkpoint`.

    Goes on where `checkpoint` holds a state, with the same numbers as if it had never stopped;
    saves one now and then, and at an interrupt, whose arguments then say where it came. A loss that
    is not finite ends the training; the run then says where it diverged, and has no answers.
    Measuring changes nothing that is trained: it is done on a copy, with random streams of its own.

    Raises:
        DeviceError: the device's memory does not suffice, or the device was lost.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(hardware_failures(config, device))
        state = TrainingState(config, data.to(device))
        if checkpoint and (saved := checkpoint.load(device)):
            # Sums come out the same only if as many threads share them.
            stack.enter_context(threads(saved[0]["provenance"]["threads"]))
            state.restore(*saved)
        stack.enter_context(flushed_denormals(device))
        if names := ", ".join(left(state.model)):
            say(log, f"{called(config.model)}: computed as they are, not in less time: {names}")
        try:
            earlier = state.losses[: state.done].tolist()
            losses = progress.track(state.updates(), config, state.iterations, log, earlier)
            going = state.settle()
            state.measure()
            for _ in losses if going else ():
                going = state.settle()
                if not going:
                    break
                if checkpoint and state.done < state.total and checkpoint.due():
                    state.save(checkpoint)
                state.measure()
                yield
            if not going:
                say(log, f"{config.describe()}: diverged in epoch {state.epoch}")
            progress.tell(log, config, state.losses[: state.done].tolist(), state.total, ended=True)
        except KeyboardInterrupt as stop:
            stop.args = state.stop(checkpoint)
            raise
        return state.run()


def finish(steps: Steps) -> Run:
    """Train to the end."""
    with deterministic():
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            except KeyboardInterrupt as stop:
                stop.args += interrupt(steps)
                raise


def interrupt(steps: Steps) -> tuple[str, ...]:
    """Let a training save its state and end, if it has not; where it was."""
    try:
        steps.throw(KeyboardInterrupt())
    except KeyboardInterrupt as stop:
        return stop.args
    return ()


def deterministic() -> contextlib.AbstractContextManager[None]:
    """Let one seed give one result on a GPU too, in all trainings within the block."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def hardware_failures(config: Config, device: torch.device) -> Iterator[None]:
    """Turn what torch raises when memory or a device gives out into a sentence.

    Raises:
        DeviceError: names the setting to lower, or what to do.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        memory = ("out of memory", "not enough memory", "allocate memory")
        if isinstance(error, MemoryError) or any(words in said for words in memory):
            raise DeviceError(
                f"the memory of the device {device} does not suffice for batch_size "
                f"{config.batch_size}; lower batch_size, or end other programs that use it."
            ) from error
        if isinstance(error, torch.AcceleratorError) or "CUDA error" in said:
            raise DeviceError(
                f"the device {device} was lost ({said.splitlines()[0]}); start again in a new "
                "process, and the training goes on from its last checkpoint."
            ) from error
        raise
