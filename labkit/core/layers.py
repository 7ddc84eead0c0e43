"""What an image passes through in a network, and which of the weights it can reach."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

#: Of a call of a module the module's name, the module, and the shapes that go in and come out.
Call = tuple[str, nn.Module, torch.Size, torch.Size]


def live_taps(conv: nn.Conv2d, size: torch.Size, outputs: torch.Size) -> list[range]:
    """The rows and the columns of a convolution's kernel that ever meet a pixel.

    The others only ever meet the zeros of the padding: whatever they hold acts on nothing, and
    their gradient is zero. On a map of one pixel a padded 3×3 kernel has one live tap of nine.

    Args:
        size: of the map that comes in, (H, W); `outputs` of the one that goes out.
    """
    if conv.padding_mode != "zeros":
        return list(map(range, conv.kernel_size))
    live = []
    for axis, (pixels, padding) in enumerate(zip(size, paddings(conv), strict=True)):
        stride, apart = conv.stride[axis], conv.dilation[axis]
        first = [output * stride - padding for output in range(outputs[axis])]  # under tap 0
        taps = range(conv.kernel_size[axis])
        met = [tap for tap in taps if any(0 <= pixel + tap * apart < pixels for pixel in first)]
        live.append(range(met[0], met[-1] + 1) if met else range(0))
    return live


def paddings(conv: nn.Conv2d) -> tuple[int, ...]:
    """The zeros above and to the left of the maps of a convolution, which may be named."""
    if isinstance(conv.padding, tuple):
        return conv.padding
    around = zip(conv.dilation, conv.kernel_size, strict=True)
    return tuple((conv.padding == "same") * apart * (taps - 1) // 2 for apart, taps in around)


@contextlib.contextmanager
def watching(
    modules: Iterable[nn.Module], note: Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]
) -> Iterator[None]:
    """Within the block call `note(module, inputs, output)` after each forward pass of a module."""
    hooks = [module.register_forward_hook(note) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def probe(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Call]:
    """Every call of a module without children, in order, for an image of `input_shape` (C, H, W).

    The shapes are without the batch; of several tensors the first one's.
    """
    calls: list[Call] = []
    names = {module: name for name, module in model.named_modules() if not any(module.children())}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        before, after = _first(inputs), _first(output)
        if before is not None and after is not None:
            calls.append((names[module], module, before.shape[1:], after.shape[1:]))

    was_training = model.training
    try:
        # Not in inference mode: a network may keep what it computes for the next pass.
        with watching(names, note), torch.no_grad():
            model.eval()(next(model.parameters()).new_zeros(1, *input_shape))
    finally:
        model.train(was_training)
    return calls


def _first(value: Any) -> Tensor | None:
    """The first tensor of what a module takes or returns."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def weighted(model: nn.Module) -> list[nn.Module]:
    """The modules without children that have parameters."""
    leaves = (module for module in model.modules() if not any(module.children()))
    return [module for module in leaves if any(True for _ in module.parameters())]


def layer_table(model: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> pd.DataFrame:
    """Every module that computes, in execution order, for one image of `input_shape` (C, H, W).

    Columns: `name`, `kind`, `kernel` and `stride` (pixels; 0 where there is none, text as 3×5 for
    two sides that differ), `output_shape` (C, H, W), `parameters`, `can_learn` (those of them that
    the images can reach, see `live_taps`) and `multiply_adds` (of convolutions and linear layers,
    for one image; other layers count 0, as is usual). What has parameters and is no such module, or
    does nothing for an image, is a last row of kind "".
    """
    rows, left = [], {id(parameter): parameter.numel() for parameter in model.parameters()}
    for name, module, before, after in probe(model, input_shape):
        # Of what is used twice, the parameters count once.
        own = {key: left.pop(key) for p in module.parameters() if (key := id(p)) in left}
        parameters = can_learn = sum(own.values())
        multiply_adds = 0
        if isinstance(module, nn.Conv2d):
            multiply_adds = module.weight.numel() * after[1:].numel()
            live = math.prod(map(len, live_taps(module, before[1:], after[1:])))
            dead = math.prod(module.kernel_size) - live
            if id(module.weight) in own:
                can_learn -= module.weight[:, :, 0, 0].numel() * dead
        elif isinstance(module, nn.Linear):
            multiply_adds = module.weight.numel() * after[:-1].numel()
        rows.append(
            {
                "name": name,
                "kind": type(module).__name__,
                "kernel": _side(getattr(module, "kernel_size", 0)),
                "stride": _side(getattr(module, "stride", 0)),
                "output_shape": tuple(after),
                "parameters": parameters,
                "can_learn": can_learn,
                "multiply_adds": multiply_adds,
            }
        )
    if left:
        rows.append({"name": "other parameters", "kind": "", "output_shape": ()})
        rows[-1] |= {"parameters": sum(left.values()), "can_learn": sum(left.values())}
        rows[-1] |= dict.fromkeys(("kernel", "stride", "multiply_adds"), 0)
    return pd.DataFrame(rows)


def _side(size: Any) -> int | str:
    """The side of a square in pixels, or both sides of what is none."""
    sides = set(size) if isinstance(size, tuple) else {size}
    return sides.pop() if len(sides) == 1 else "×".join(map(str, size))
