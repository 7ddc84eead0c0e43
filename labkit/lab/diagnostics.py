"""What is measured in the course of a training, and when; `core.measures` defines each measure."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from labkit.core.config import Config
from labkit.core.data import Data
from labkit.core.evaluate import Population, all_zero, norms_of, take_over
from labkit.core.layers import Call, probe, watching, weighted
from labkit.core.measures import MEASURES
from labkit.core.train import batch_loss
from labkit.lab import streams

#: At each moment so many batches of so many training images are drawn anew, by seed and update.
BATCHES, BATCH = 4, 64
#: A moment takes as long as some 250 images of training: forty moments of a training on the full
#: MNIST are under 2 % of it. A shorter training has fewer, down to `FEWEST`; one so short that even
#: these would be more than one in `UPDATES_PER_MOMENT` updates has fewer still.
MOMENTS, FEWEST, IMAGES_PER_MOMENT, UPDATES_PER_MOMENT = 40, 4, 15_000, 15
DENSE = 100  # updates in which a third of the moments lie, ever further apart


def moments(updates: int, batch_size: int) -> list[int]:
    """After how many updates a training of `updates` is measured; 0 is before the first."""
    count = max(updates * batch_size // IMAGES_PER_MOMENT, FEWEST)
    count = min(count, MOMENTS, 1 + updates // UPDATES_PER_MOMENT)
    dense = max(min(DENSE, updates // 3), 1)
    early = min(max(count // 3, 3), count - 1)
    first = [0, *np.geomspace(1, dense, max(early - 1, 0)).round()]
    then = np.linspace(dense, updates - 1, count - early + 1)[1:].round()
    return sorted({int(update) for update in [*first, *then]})[:count]


class Diagnostics:
    """The measures of one training, filled at its moments.

    Args:
        model: the network that trains; it is never touched.
        twin: a copy of it, see `evaluate.twin_of`, on which everything is measured.
        updates: of the whole training.

    Attributes:
        layers: the names of the layers along the axes of measures, see `Run.layers`.
        table: the measures so far, NaN where there is none yet; on the training's device, so that
            nothing waits for it.
    """

    def __init__(
        self, model: nn.Module, twin: nn.Module, data: Data, config: Config, updates: int
    ) -> None:
        self.model, self.twin, self.data, self.config = model, twin, data, config
        at = moments(updates, config.batch_size)
        self.rows = {update: row for row, update in enumerate(at)}
        calls = probe(twin, data.train.images.shape[1:])
        self.activations = list(_activations(calls))
        *_, last = [None, *(call[1] for call in calls if call[1] in weighted(twin))]
        self.last = [last] if isinstance(last, nn.Linear) else []
        names = {module: name for name, module in twin.named_modules()}
        layers = {
            "weights": [name.removesuffix(".weight") for name in _weights(twin)],
            "activations": [name for name, _ in self.activations],
            "normalizations": [names[norm] for norm in norms_of(twin)],
        }
        self.layers = {axis: names for axis, names in layers.items() if names}
        kinds = {_kind(module) for _, module in self.activations}
        sizes = {"moments": len(at)} | {axis: len(names) for axis, names in self.layers.items()}
        device = data.train.labels.device
        self.table = {
            name: torch.full([sizes[axis] for axis in measure.axes], torch.nan, device=device)
            for name, measure in MEASURES.items()
            if sizes.keys() >= set(measure.axes)
            and ("activations" not in measure.axes or name in kinds)
            and (name != "silenced" or self.last)
        }
        self.table["update"] = torch.tensor(at, dtype=torch.int32, device=device)

    @torch.no_grad()
    def before(self, done: int) -> None:
        """To be called before each update, `done` of them lying behind: at a moment measures
        everything but what the update changes."""
        if done not in self.rows:
            return
        take_over(self.twin, self.model)
        self.twin.train()
        population = Population(self.twin)
        silenced, activities = [], []

        def note_features(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
            silenced.append(all_zero(inputs[0]).float().mean())

        def note_activation(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
            activities.append((module, _activity(module, output.detach())))

        with (
            watching(norms_of(self.twin), population.note),
            watching(self.last, note_features),
            watching({module for _, module in self.activations}, note_activation),
        ):
            found = self._pass_probe(done)
        if self.last:
            found["silenced"] = torch.stack(silenced).mean()
        theirs = dict(zip(norms_of(self.twin), norms_of(self.model), strict=True))
        lags = {norm: _lag(theirs[norm], *both) for norm, *both in population.statistics()}
        nowhere = torch.full_like(found["gradient_square"], torch.nan)
        if theirs:
            found["lag"] = torch.stack([lags.get(n, nowhere) for n in theirs])
        calls = [module for _, module in self.activations]
        if [module for module, _ in activities] == calls * BATCHES:  # as `probe` found them
            by_call = [
                torch.stack([activity for _, activity in activities[call :: len(calls)]])
                for call in range(len(calls))
            ]
            if "dead" in self.table:
                silent = [(largest.amax(0) == 0).float().mean() for largest in by_call]
                found["dead"] = torch.stack(silent)
            if "saturated" in self.table:
                found["saturated"] = torch.stack([shares.mean() for shares in by_call])
        for name, values in found.items():
            self.table[name][self.rows[done]] = values

    def _pass_probe(self, done: int) -> dict[str, Tensor]:
        """Pass the probe's batches through the twin; what follows from weights and gradients."""
        train = self.data.train
        seed = int(np.random.SeedSequence([self.config.seed, 2, done]).generate_state(1)[0])
        own = streams.generators(seed, train.labels.device)  # they serve dropout as well
        size = min(BATCH, len(train) // BATCHES)
        drawn = torch.randperm(len(train), generator=own[0])[: BATCHES * size]
        parameters = [p for p in self.twin.parameters() if p.requires_grad]
        sizes = [parameter.numel() for parameter in parameters]
        mean, squares = torch.zeros(sum(sizes), device=train.labels.device), []
        for batch in drawn.to(train.labels.device).split(size):
            with streams.in_use(own), torch.enable_grad():
                loss = batch_loss(self.twin, self.data, self.config, batch)
                gradient = torch.autograd.grad(
                    loss, parameters, allow_unused=True, materialize_grads=True
                )
            # As one vector: on a GPU each part would be some kernels of its own.
            whole = torch.cat([part.flatten() for part in gradient])
            squares.append(whole.square().sum())
            mean += whole / BATCHES
        small, large = torch.stack(squares).mean(), mean.square().sum()
        parts = zip(mean.split(sizes), parameters, strict=True)
        return {
            "gradient_norm": torch.stack([part.norm() for part, p in parts if p.ndim > 1]),
            "weight_norm": torch.stack([w.norm() for w in _weights(self.twin).values()]),
            # McCandlish et al. 2018, appendix A.1: batches of `size` and of `BATCHES` times it.
            "gradient_square": (BATCHES * large - small) / (BATCHES - 1),
            "gradient_variance": (small - large) * size * BATCHES / (BATCHES - 1),
        }

    @torch.no_grad()
    def after(self, done: int) -> None:
        """To be called after each update, `done` of them lying behind."""
        if done - 1 in self.rows:
            pairs = zip(*(_weights(m).values() for m in (self.twin, self.model)), strict=True)
            changes = torch.stack([(new - old).norm() / old.norm() for old, new in pairs])
            changes = changes.masked_fill(changes.isinf(), torch.nan)  # from zero: no share of it
            self.table["relative_update"][self.rows[done - 1]] = changes

    def arrays(self) -> dict[str, np.ndarray]:
        """The measures for the record, of the moments that the training reached.

        Numbers are kept to 12 significant bits (to 0.02 %), which packs them into two thirds.
        """
        reached = (~self.table["gradient_square"].isnan()).cpu().numpy()
        found = {}
        for name, values in self.table.items() if reached.any() else ():
            kept = values.cpu().numpy()[reached]
            if name != "update":
                kept = ((kept.view(np.uint32) + 0x800) & 0xFFFFF000).view(np.float32)
            found[name] = kept
        return found


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that learn of convolutions, linear layers and the like, by name."""
    return {n: p for n, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}


def _lag(norm: nn.Module, mean: Tensor, variance: Tensor) -> Tensor:
    """How far the running averages of `norm` are from the mean and variance of the probe."""
    deviation = (norm.running_var + norm.eps).sqrt()
    shift = (mean - norm.running_mean) / deviation
    stretch = (variance + norm.eps).sqrt() / deviation - 1
    return (shift**2 + stretch**2).mean().sqrt()


def _kind(activation: nn.Module) -> str:
    """The measure that an activation has; "" if none."""
    if isinstance(activation, nn.ReLU):
        return "dead"
    return "saturated" if isinstance(activation, nn.Sigmoid | nn.Tanh) else ""


def _activations(calls: Iterable[Call]) -> Iterator[tuple[str, nn.Module]]:
    """Every call of an activation that has a measure, in order, named by the layer with weights
    that comes before it."""
    name = ""
    for called, module, _, _ in calls:
        if any(parameter.ndim > 1 for parameter in module.parameters()):
            name = called
        elif _kind(module):
            yield name, module


def _activity(activation: nn.Module, output: Tensor) -> Tensor:
    """Of a batch the largest output of each channel (ReLU), or the share of saturated outputs."""
    if _kind(activation) == "dead":
        return output.amax([axis for axis in range(output.ndim) if axis != 1])
    slope = 1 - output**2  # tanh's derivative, at most 1
    if isinstance(activation, nn.Sigmoid):
        slope = 4 * output * (1 - output)  # its derivative, over the maximum of 1/4
    return (slope < 0.05).float().mean()
