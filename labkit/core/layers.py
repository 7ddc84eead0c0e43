"""What an image passes through in a network, and which of the weights it can reach."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import pandas as pd
import torch
from torch import Tensor, nn


def live_taps(conv: nn.Conv2d, size: torch.Size, outputs: torch.Size) -> list[range]:
    """The rows and the columns of a convolution's kernel that ever meet a pixel.

    The others only ever meet the zeros of the padding: whatever they hold acts on nothing, and
    their gradient is zero. On a map of one pixel a padded 3×3 kernel has one live tap of nine.

    Args:
        size: of the map that comes in, (H, W); `outputs` of the one that goes out.
    """
    live = []
    for axis, pixels in enumerate(size):
        stride, padding = conv.stride[axis], conv.padding[axis]
        first = [output * stride - padding for output in range(outputs[axis])]  # under tap 0
        taps = range(conv.kernel_size[axis])
        met = [tap for tap in taps if any(0 <= pixel + tap < pixels for pixel in first)]
        live.append(range(met[0], met[-1] + 1))
    return live


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


def probe(
    model: nn.Module, input_shape: tuple[int, int, int]
) -> list[tuple[str, nn.Module, torch.Size, torch.Size]]:
    """Every call of a module without children, in order, for an image of `input_shape` (C, H, W).

    Of each call the module's name, the module, and the shapes that go in and come out, without
    the batch.
    """
    calls: list[tuple[str, nn.Module, torch.Size, torch.Size]] = []
    names = {module: name for name, module in model.named_modules() if not any(module.children())}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((names[module], module, inputs[0].shape[1:], output.shape[1:]))

    was_training = model.training
    try:
        with watching(names, note), torch.inference_mode():
            model.eval()(next(model.parameters()).new_zeros(1, *input_shape))
    finally:
        model.train(was_training)
    return calls


def layer_table(model: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> pd.DataFrame:
    """Every module that computes, in execution order, for one image of `input_shape` (C, H, W).

    Columns: `name`, `kind`, `kernel` and `stride` (pixels; 0 where there is none), `output_shape`
    (C, H, W), `parameters`, `can_learn` (those of them that the images can reach, see
    `live_taps`) and `multiply_adds` (of convolutions and the linear layer, for one image; other
    layers count 0, as is usual).
    """
    rows = []
    for name, module, before, after in probe(model, input_shape):
        kernel, stride = (getattr(module, size, 0) for size in ("kernel_size", "stride"))
        parameters = can_learn = sum(p.numel() for p in module.parameters())
        if isinstance(module, nn.Conv2d):
            height, width = map(len, live_taps(module, before[1:], after[1:]))
            can_learn = module.weight[:, :, 0, 0].numel() * height * width
        multiplies = isinstance(module, nn.Conv2d | nn.Linear)
        rows.append(
            {
                "name": name,
                "kind": type(module).__name__,
                "kernel": kernel[0] if isinstance(kernel, tuple) else kernel,
                "stride": stride[0] if isinstance(stride, tuple) else stride,
                "output_shape": tuple(after),
                "parameters": parameters,
                "can_learn": can_learn,
                "multiply_adds": module.weight.numel() * after[1:].numel() if multiplies else 0,
            }
        )
    return pd.DataFrame(rows)
