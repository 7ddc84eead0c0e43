"""The training loop."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.core.config import Config
from labkit.core.data import Data


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimizer of `config`; `momentum` is SGD with a momentum of 0.9."""
    settings = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
        on_gpu = next(model.parameters()).is_cuda
        return kind(model.parameters(), capturable=on_gpu, **settings)
    momentum = 0.9 if config.optimizer == "momentum" else 0.0
    return torch.optim.SGD(model.parameters(), momentum=momentum, **settings)


def batches(images: int, config: Config, done: int, device: torch.device) -> Iterator[Tensor]:
    """The indices of each batch's images, int64 `[batch_size]`, on `device`; an epoch's last batch
    may be shorter.

    The order comes from a CPU generator with the config's seed: the same anywhere. So a training
    whose first `done` iterations lie behind goes on with the batches that are left.
    """
    shuffle = torch.Generator().manual_seed(config.seed)
    iterations = -(-images // config.batch_size)
    for epoch in range(config.epochs):
        order = torch.randperm(images, generator=shuffle).to(device)  # once, not batch by batch
        behind = min(max(done - epoch * iterations, 0), iterations)
        yield from order.split(config.batch_size)[behind:]


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, batch: Tensor
) -> Tensor:
    """One iteration on the images of `batch`: the mean cross-entropy in nats before it."""
    model.train()  # here, since whoever iterates may evaluate in between
    images = data.prepare(data.train.images[batch], config.normalization)
    loss = F.cross_entropy(model(images), data.train.labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, done: int = 0
) -> Iterator[Tensor]:
    """Train `model` in place on `data.train`, both on one device, while it is iterated over.

    After each iteration it yields the batch's loss, a tensor of no dimensions that stays on the
    device, so that a GPU need not wait for the CPU. `graphs.fit` does the same in less time.
    """
    for batch in batches(len(data.train), config, done, data.train.labels.device):
        yield step(model, optimizer, data, config, batch)
