"""The training loop."""

import inspect
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.core.config import OPTIMIZERS, Config
from labkit.core.data import Data


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The optimizer of `config`, see `OPTIMIZERS`; fused and capturable where its class can be."""
    name, options, _ = OPTIMIZERS[config.optimizer]
    kind = getattr(torch.optim, name)
    fast = {"fused": True, "capturable": next(model.parameters()).is_cuda}
    options = {k: v for k, v in fast.items() if k in inspect.signature(kind).parameters} | options
    return kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, **options)


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


def batch_loss(model: nn.Module, data: Data, config: Config, batch: Tensor) -> Tensor:
    """What is minimised: the mean cross-entropy in nats on the training images of `batch`."""
    images = data.prepare(data.train.images[batch], config.normalization)
    return F.cross_entropy(model(images), data.train.labels[batch])


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, batch: Tensor
) -> Tensor:
    """One iteration on the images of `batch`: their `batch_loss` before it."""
    model.train()  # here, since whoever iterates may evaluate in between
    loss = batch_loss(model, data, config, batch)
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
