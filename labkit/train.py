"""The training loop."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config import Config
from labkit.data import Data


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimizer of `config`; `momentum` is SGD with a momentum of 0.9."""
    settings = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **settings)
    momentum = 0.9 if config.optimizer == "momentum" else 0.0
    return torch.optim.SGD(model.parameters(), momentum=momentum, **settings)


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, done: int = 0
) -> Iterator[Tensor]:
    """Train `model` in place on `data.train`, both on one device.

    A generator: it trains while it is iterated over. After each iteration it yields the batch's
    mean cross-entropy in nats, a tensor of no dimensions that stays on the device, so that a GPU
    need not wait for the CPU.

    The order of the images comes from a CPU generator with the config's seed: the same anywhere.
    So a training whose first `done` iterations lie behind goes on with the batches that are left.
    """
    train, device = data.train, data.train.labels.device
    shuffle = torch.Generator().manual_seed(config.seed)
    iterations = -(-len(train) // config.batch_size)
    for epoch in range(config.epochs):
        order = torch.randperm(len(train), generator=shuffle).to(device)
        behind = min(max(done - epoch * iterations, 0), iterations)
        for batch in order.split(config.batch_size)[behind:]:
            model.train()  # here, since whoever iterates may evaluate in between
            images = data.prepare(train.images[batch], config.normalization)
            loss = F.cross_entropy(model(images), train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.detach()
