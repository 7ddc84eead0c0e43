"""ResNet-18 with the activation passed in, under torchvision's module names."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from labkit.core.config import Config

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


def build(config: Config, channels: int = 1, classes: int = 10) -> ResNet18:
    """The network of `config` for images of so many channels and classes, on the CPU, its initial
    weights drawn from the config's seed.

    `kaiming` is torchvision's initialisation: convolutions normal with fan-out and the ReLU gain,
    whatever the activation (He et al. 2015, arXiv:1502.01852); the rest is PyTorch's default.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        activation = ACTIVATION_MODULES[config.activation]
        sizes = {"channels": channels, "classes": classes}
        model = ResNet18(activation, **sizes, max_pool=config.max_pool)
        if config.init == "kaiming":
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
