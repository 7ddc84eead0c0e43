"""A network in less time: nothing is computed with weights that cannot learn."""

import copy
import itertools
from collections import Counter, defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from labkit.core.evaluate import norms_of
from labkit.core.layers import live_taps, paddings, probe
from labkit.core.model import LeNet5, ResNet


def slim(model: nn.Module, input_shape: tuple[int, int, int] = (1, 28, 28)) -> nn.Module:
    """Reduce `model`, in place, to what images of `input_shape` (C, H, W) can reach; the same
    function, the same gradients.

    Of every kernel only the live taps are stored, computed with and updated (see `live_taps`):
    4.2 of ResNet-18's 11.2 million parameters on 28×28 pixels. Maps lie in memory with the
    channels last, and on a CPU a convolution whose pixels all meet each other is one matrix
    product. To be called before the optimizer is made, on the device that will train.

    What is no plain convolution of one size and one place stays as it is; see `left`. So does all
    of a network of the user's own that gives anything else when it is reduced, as one may that
    looks at its convolutions' weights or asks for maps in another layout.

    A `state_dict` has the full kernels, as if nothing had been reduced. Their dead taps hold what
    they held before, or what was loaded; the plain model's shrink with weight decay, where there is
    any. They act on nothing either way.
    """
    if isinstance(model, ResNet | LeNet5) or _stays_alike(model, input_shape):
        _reduce(model, input_shape)
    return model


def left(model: nn.Module) -> list[str]:
    """The names of the convolutions that `slim` has left as they are."""
    return [n for n, m in model.named_modules() if isinstance(m, nn.modules.conv._ConvNd)]


def _reduce(model: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
    sizes: dict[nn.Module, list[tuple[torch.Size, torch.Size]]] = defaultdict(list)
    for _, module, before, after in probe(model, input_shape):
        sizes[module].append((before[1:], after[1:]))
    places = Counter(map(id, dict(model.named_parameters(remove_duplicate=False)).values()))
    for name, module in list(model.named_modules()):
        if _plain(module) and len(set(sizes[module])) == 1 and places[id(module.weight)] == 1:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, LiveConv2d(module, *sizes[module][0]))
    norms = [norm for norm in norms_of(model) if type(norm) is nn.BatchNorm2d and norm.momentum]
    norms = [norm for norm in norms if len(sizes[norm]) == 1]
    for norm in norms[1:]:  # one counter for all: on a GPU each would be a kernel of its own
        norm.num_batches_tracked = norms[0].num_batches_tracked
        norm.__class__ = UncountedBatchNorm2d
    return model


def _plain(module: nn.Module) -> bool:
    """Whether a module is a convolution that `LiveConv2d` can take the place of."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and (module.padding != "same" or all(taps % 2 for taps in module.kernel_size))
        and "weight" in module._parameters  # and not made anew at each pass
        and not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
    )


def _stays_alike(model: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    """Whether the network gives the same for some images when it is reduced, and trains."""
    plain, noise = copy.deepcopy(model), torch.Generator().manual_seed(0)
    images = torch.randn(3, *input_shape, generator=noise).to(next(model.parameters()))
    with torch.no_grad():
        for weights in plain.parameters():  # where some begin at zero, all would be alike
            weights += 0.1 * torch.randn(weights.shape, generator=noise).to(weights)
        reduced = copy.deepcopy(plain)
        expected = plain.eval()(images)
        try:
            found = _reduce(reduced, input_shape).eval()(images)
            reduced.train()(images)
            off = (found - expected).abs().max() / expected.abs().max()
        except Exception:  # whatever a network may do with what it expects to be a convolution
            return False
    # One that keeps its layers in a list, too, goes on to call those that were replaced.
    called = [[name for name, *_ in probe(network, input_shape)] for network in (plain, reduced)]
    return bool(off <= 1e-2) and called[0] == called[1]  # TF32 has three digits


class UncountedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that leaves it to another module to count the batches."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        affine = self.weight, self.bias
        return F.batch_norm(x, mean, variance, *affine, self.training, self.momentum, self.eps)


class LiveConv2d(nn.Module):
    """The convolution `conv` for maps of one size, with its live taps alone.

    `weight` is `[outputs, height, width, inputs]`: channels last, as the maps are, but contiguous,
    since fused optimizers copy any other.

    Args:
        size: of the maps that come in, (H, W); `outputs` of those that go out.
    """

    def __init__(self, conv: nn.Conv2d, size: torch.Size, outputs: torch.Size) -> None:
        super().__init__()
        live = live_taps(conv, size, outputs)
        kernel = conv.weight.detach()
        self.live = (..., *(slice(taps.start, taps.stop) for taps in live))
        self.stride = conv.stride
        around = zip(paddings(conv), live, strict=True)
        self.padding = tuple(zeros - taps.start for zeros, taps in around)
        self.size, self.outputs = tuple(size), tuple(outputs)
        weight = kernel[self.live].permute(0, 2, 3, 1)
        on_cpu = kernel.device.type == "cpu"
        self.from_patches = on_cpu and conv.in_channels == 1
        shape = weight.shape[1:3]
        self.dense = dense(size, outputs, shape, self.stride, self.padding) if on_cpu else None
        if self.dense and len(self.dense[1]) > 1:
            laid_out = [weight[:, rows, columns] for rows, columns in self.dense[1]]
            self.matrix = torch.stack(laid_out)
        own = weight.clone(memory_format=torch.contiguous_format)
        self.weight = nn.Parameter(own, conv.weight.requires_grad)
        self.bias, self.kernel = conv.bias, kernel
        self.register_state_dict_post_hook(LiveConv2d.restore_kernel)
        self.register_load_state_dict_pre_hook(LiveConv2d.reduce_kernel)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != self.size:
            raise ValueError(f"a convolution got maps of {tuple(x.shape[2:])}, not {self.size}")
        height, width = self.weight.shape[1:3]
        if self.dense:
            (rows, columns), taps = self.dense
            maps = x.permute(0, 2, 3, 1)[:, rows, columns].contiguous().flatten(1)
            one = len(taps) == 1
            matrix = (
                self.weight.flatten(1) if one else LaidOut.apply(self.weight, taps, self.matrix)
            )
            y = Product.apply(maps, matrix)
            y = y.unflatten(1, (*self.outputs, -1)).permute(0, 3, 1, 2)
        elif self.from_patches:
            padded = F.pad(x[:, 0], [p for p in self.padding[::-1] for _ in range(2)])
            patches = padded.unfold(1, height, self.stride[0]).unfold(2, width, self.stride[1])
            y = Product.apply(patches.flatten(3), self.weight.flatten(1)).permute(0, 3, 1, 2)
        else:
            weight = self.weight.permute(0, 3, 1, 2)
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)
        return y if self.bias is None else y + self.bias[:, None, None]

    def restore_kernel(self, state_dict: dict[str, Tensor], prefix: str, _: object) -> None:
        """Put the dead taps back."""
        full = self.kernel.clone()
        full[self.live] = self.weight.detach().permute(0, 3, 1, 2)
        state_dict[prefix + "weight"] = full

    def reduce_kernel(self, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
        """Take the live taps of a full kernel."""
        full = state_dict.get(prefix + "weight")
        if full is not None and full.shape == self.kernel.shape:
            self.kernel.copy_(full)
            state_dict[prefix + "weight"] = full[self.live].permute(0, 2, 3, 1)


def dense(
    size: torch.Size,
    outputs: torch.Size,
    kernel: torch.Size,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> tuple[tuple[slice, slice], list[tuple[slice, slice]]] | None:
    """A convolution from maps of `size` to maps of `outputs`, (H, W), as one dense matrix.

    Returns:
        The rows and columns of the pixels that come in, and for each output pixel the rows and
        columns of the taps that meet them. None where some output pixel does not meet them all, so
        that the matrix would have zeros.
    """
    pixels, taps = [], []
    for axis in range(2):
        first = [o * stride[axis] - padding[axis] for o in range(outputs[axis])]  # under tap 0
        met = {(max(0, f), min(size[axis], f + kernel[axis])) for f in first}
        if len(met) > 1:
            return None
        ((start, stop),) = met
        pixels.append(slice(start, stop))
        taps.append([slice(start - f, stop - f) for f in first])
    return tuple(pixels), list(itertools.product(*taps))


def product(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.t()` of `[..., inputs]` and `[outputs, inputs]`, by oneDNN.

    `F.linear` calls MKL, which makes half of an AMD processor: 64×1024 by 1024×1024 took 960 µs
    with it and 380 µs with oneDNN (two cores, AVX-512, torch 2.15).
    """
    if x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return F.linear(x, weight)


class Product(torch.autograd.Function):
    """`product` with its gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        dx = product(dy, weight.t()) if ctx.needs_input_grad[0] else None
        return dx, product(dy.flatten(0, -2).t(), x.flatten(0, -2).t())


class LaidOut(torch.autograd.Function):
    """Weights `[outputs, rows, columns, inputs]` as the matrix of a `dense` convolution,
    `[pixels × outputs, H × W × inputs]`.

    `matrix`, `[pixels, outputs, H, W, inputs]`, is memory for it, kept from step to step since
    asking for as much each time takes longer.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, weight: Tensor, taps: list[tuple[slice, slice]], matrix: Tensor
    ) -> Tensor:
        for pixel, (rows, columns) in zip(matrix, taps, strict=True):
            pixel.copy_(weight[:, rows, columns])
        ctx.taps, ctx.shapes = taps, (weight.shape, matrix.shape)
        return matrix.flatten(2).flatten(0, 1)

    @staticmethod
    def backward(ctx: FunctionCtx, dmatrix: Tensor) -> tuple[Tensor, None, None]:
        dweight = dmatrix.new_zeros(ctx.shapes[0])
        for pixel, (rows, columns) in zip(dmatrix.view(ctx.shapes[1]), ctx.taps, strict=True):
            dweight[:, rows, columns] += pixel
        return dweight, None, None
