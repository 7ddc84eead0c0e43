"""The networks, with the activation passed in; ResNets under torchvision's module names."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.core.config import ACTIVATIONS, Config
from labkit.core.network import NetworkError, load, own

ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    name: getattr(nn, kind) for name, kind in ACTIVATIONS.items()
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


class ResNet(nn.Module):
    """ResNet-18, or 34 with `blocks` (3, 4, 6, 3) (He et al. 2015, table 1, arXiv:1512.03385).

    A `state_dict` is interchangeable with that of `torchvision.models.resnet18` or `resnet34` of
    the same `channels` and `classes`.

    Args:
        activation: makes the activation that stands behind every convolution but the shortcuts'.
        blocks: how many residual blocks each of the four groups has.
        channels: of an input image; 1 for grey.
        classes: the number of logits.
        max_pool: whether the 3×3 max-pool with stride 2 follows the stem.
    """

    def __init__(
        self,
        activation: Callable[[], nn.Module] = nn.ReLU,
        blocks: tuple[int, int, int, int] = (2, 2, 2, 2),
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
        for number, count in enumerate(blocks, start=1):
            inputs, outputs = widths[number - 1], widths[number]
            first = BasicBlock(inputs, outputs, 1 if number == 1 else 2, activation)
            others = [BasicBlock(outputs, outputs, 1, activation) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch, classes]` of images `[batch, channels, height, width]`."""
        x = self.maxpool(self.activation(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998, doi:10.1109/5.726791, figure 2) as it is taught today: plain
    average pooling, every map connected to every other, and a linear layer that gives the logits.

    The original pads MNIST's images to 32×32, as the first convolution does here.

    Args:
        activation: makes the activation that stands behind every layer but the last.
        channels: of an input image; 1 for grey.
        classes: the number of logits.
        pixels: of an image, (H, W), at least 12 each.
    """

    def __init__(
        self,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        channels: int = 1,
        classes: int = 10,
        pixels: tuple[int, int] = (28, 28),
    ) -> None:
        super().__init__()
        height, width = ((side // 2 - 4) // 2 for side in pixels)
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[batch, classes]` of images `[batch, channels, height, width]`."""
        x = self.pool(self.activation(self.conv1(x)))
        x = self.pool(self.activation(self.conv2(x)))
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(x.flatten(1))))))


def build(
    config: Config, channels: int = 1, classes: int = 10, pixels: tuple[int, int] = (28, 28)
) -> nn.Module:
    """The network of `config` for such images on the CPU, its initial weights drawn from the seed.

    `kaiming` is torchvision's initialisation of a ResNet: every `nn.Conv2d`, whoever's network it
    is in, normal with fan-out and the ReLU gain, whatever the activation (He et al. 2015,
    arXiv:1502.01852); the rest is PyTorch's default, or what a network of the user's own makes of
    it. Such a network is what the function returns that `config.model` names, called with those of
    `activation` (makes one), `channels`, `classes` and `pixels` that its signature has.

    Args:
        channels, pixels: of an image; `classes` the number of logits.

    Raises:
        NetworkError: the network does not take such images, or is none that can be trained.
    """
    activation = ACTIVATION_MODULES[config.activation]
    given = {"channels": channels, "classes": classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if own(config.model):
            model = _own(config.model, {"activation": activation, "pixels": pixels, **given})
        elif config.model == "cnn":
            if min(pixels) < 12:
                found = "×".join(map(str, pixels))
                raise NetworkError(f"model is 'cnn'; it must have 12×12 pixels, not {found}.")
            model = LeNet5(activation, pixels=pixels, **given)
        else:
            blocks = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}[config.model]
            model = ResNet(activation, blocks, max_pool=config.max_pool, **given)
        if config.init == "kaiming":
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


def _own(name: str, given: dict[str, Any]) -> nn.Module:
    """What the user's own function of that `Config.model` returns, tried on blank images."""
    function = load(name)
    classes, (height, width) = given["classes"], given["pixels"]
    images = torch.zeros(classes + 1, given["channels"], height, width)  # one more: axes differ
    logits = None
    try:
        wanted = inspect.signature(function).parameters
        model = function(**{key: value for key, value in given.items() if key in wanted})
        if good := isinstance(model, nn.Module):
            with torch.no_grad():
                logits = model.eval()(images)  # makes the weights of lazy modules, too
            copy.deepcopy(model)  # on copies it is measured
            good = any(w.requires_grad and w.ndim > 1 for w in model.parameters())
    except Exception as error:
        raise NetworkError(
            f"model is {name!r}; it must give logits for images {list(images.shape)}, and raised "
            f"{type(error).__name__}: {error}."
        ) from error
    if not good:
        found = "one without any" if isinstance(model, nn.Module) else f"a {type(model).__name__}"
        raise NetworkError(
            f"model is {name!r}; it must return an nn.Module with weights to train, not {found}."
        )
    if not isinstance(logits, Tensor) or logits.shape != (classes + 1, classes):
        found = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise NetworkError(
            f"model is {name!r}; its logits must be [n, {classes}], not {found} for "
            f"n = {classes + 1}."
        )
    return model.train()
