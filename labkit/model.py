"""ResNet-18 with the activation passed in, under torchvision's module names."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from labkit.config import Config

ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


class BasicBlock(nn.Module):
    """A residual block: two 3×3 convolutions and a shortcut, added before the activation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.activation = activation()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.activation(self.bn1(self.conv1(x)))
        return self.activation(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2015, table 1, arXiv:1512.03385), eighteen weighted layers.

    A `state_dict` is interchangeable with that of `torchvision.models.resnet18` of the same
    `channels` and `classes`.

    Args:
        activation: makes the activation that stands behind every convolution but the shortcuts'.
        channels: of an input image; 1 for grey.
        classes: the number of logits.
        max_pool: whether the 3×3 max-pool with stride 2 follows the stem.
    """

    def __init__(
        self,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        channels: int = 1,
        classes: int = 10,
        max_pool: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.activation = activation()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool else nn.Identity()
        widths = (64, 64, 128, 256, 512)
        for number in (1, 2, 3, 4):
            inputs, outputs = widths[number - 1], widths[number]
            first = BasicBlock(inputs, outputs, 1 if number == 1 else 2, activation)
            second = BasicBlock(outputs, outputs, 1, activation)
            self.add_module(f"layer{number}", nn.Sequential(first, second))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch, classes]` of images `[batch, channels, height, width]`."""
        x = self.maxpool(self.activation(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def build(config: Config) -> ResNet18:
    """The network of `config` on the CPU, its initial weights drawn from the config's seed.

    `kaiming` is torchvision's initialisation: convolutions normal with fan-out and the ReLU gain,
    whatever the activation (He et al. 2015, arXiv:1502.01852); the rest is PyTorch's default.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ResNet18(ACTIVATION_MODULES[config.activation], max_pool=config.max_pool)
        if config.init == "kaiming":
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


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


def probe(
    model: nn.Module, input_shape: tuple[int, int, int]
) -> list[tuple[str, nn.Module, torch.Size, torch.Size]]:
    """What an image of `input_shape` (C, H, W) passes through, in that order.

    Of each call of a module without children: its name, the module, and the shapes of what goes
    in and what comes out, both without the batch.
    """
    calls: list[tuple[str, nn.Module, torch.Size, torch.Size]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        return lambda module, inputs, output: calls.append(
            (name, module, inputs[0].shape[1:], output.shape[1:])
        )

    leaves = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    hooks = [module.register_forward_hook(note(name)) for name, module in leaves]
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(next(model.parameters()).new_zeros(1, *input_shape))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
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
        kernel = getattr(module, "kernel_size", 0)
        stride = getattr(module, "stride", 0)
        weight = getattr(module, "weight", None)
        multiplies = isinstance(module, nn.Conv2d | nn.Linear)
        parameters = can_learn = sum(p.numel() for p in module.parameters())
        if isinstance(module, nn.Conv2d):
            height, width = map(len, live_taps(module, before[1:], after[1:]))
            can_learn = weight[:, :, 0, 0].numel() * height * width
        rows.append(
            {
                "name": name,
                "kind": type(module).__name__,
                "kernel": kernel[0] if isinstance(kernel, tuple) else kernel,
                "stride": stride[0] if isinstance(stride, tuple) else stride,
                "output_shape": tuple(after),
                "parameters": parameters,
                "can_learn": can_learn,
                "multiply_adds": weight.numel() * after[1:].numel() if multiplies else 0,
            }
        )
    return pd.DataFrame(rows)
