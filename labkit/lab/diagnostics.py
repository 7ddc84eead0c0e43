"""Measures of a training in its course that say why it goes as it does; `measures` defines them."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.core.config import Config
from labkit.core.data import Data
from labkit.core.evaluate import Population, norms_of, take_over
from labkit.core.layers import probe
from labkit.core.measures import MEASURES
from labkit.lab import streams

#: At each moment so many batches of so many training images are drawn anew, by seed and update.
BATCHES, BATCH = 4, 64
#: A moment takes as long as some 250 images of training: forty moments of a training on the full
#: MNIST are under 2 % of it. A shorter one has fewer, down to `FEWEST`, and one so short that even
#: these would be more than one in `UPDATES_A_MOMENT` updates fewer still.
MOMENTS, FEWEST, IMAGES_A_MOMENT, UPDATES_A_MOMENT = 40, 4, 15_000, 15
DENSE = 100  # updates in which a third of the moments lie, ever further apart


def moments(updates: int, batch_size: int) -> list[int]:
    """After how many updates a training of so many `updates` is measured; 0 is before the first."""
    many = max(updates * batch_size // IMAGES_A_MOMENT, FEWEST)
    many = min(many, MOMENTS, 1 + updates // UPDATES_A_MOMENT)
    dense = max(min(DENSE, updates // 3), 1)
    early = min(max(many // 3, 3), many - 1)
    first = [0, *np.geomspace(1, dense, max(early - 1, 0)).round()]
    then = np.linspace(dense, updates - 1, many - early + 1)[1:].round()
    return sorted({int(update) for update in [*first, *then]})[:many]


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
        weights = [name for name, weight in twin.named_parameters() if weight.ndim > 1]
        names = {module: name for name, module in twin.named_modules()}
        self.activations = list(_activations(twin, data))
        layers = {
            "weights": [name.removesuffix(".weight") for name in weights],
            "activations": [name for name, _ in self.activations],
            "normalizations": [names[norm] for norm in norms_of(twin)],
        }
        self.layers = {axis: found for axis, found in layers.items() if found}
        kinds = {_kind(module) for _, module in self.activations}
        sizes = {"moments": len(at)} | {axis: len(found) for axis, found in self.layers.items()}
        device = data.train.labels.device
        self.table = {
            name: torch.full([sizes[axis] for axis in measure.axes], torch.nan, device=device)
            for name, measure in MEASURES.items()
            if set(measure.axes) <= sizes.keys()
            and ("activations" not in measure.axes or name in kinds)
        }
        self.table["update"] = torch.tensor(at, dtype=torch.int32, device=device)

    def before(self, done: int) -> None:
        """To be called before each update, `done` of them lying behind: at a moment measures
        everything but what the update changes."""
        if done not in self.rows:
            return
        row, data, table = self.rows[done], self.data, self.table
        labels = data.train.labels
        seed = int(np.random.SeedSequence([self.config.seed, 2, done]).generate_state(1)[0])
        own = streams.generators(seed, labels.device)  # they serve dropout as well
        size = min(BATCH, len(labels) // BATCHES)
        drawn = torch.randperm(len(labels), generator=own[0])[: BATCHES * size]
        take_over(self.twin, self.model)
        self.twin.train()
        parameters = list(self.twin.parameters())
        mean = [torch.zeros_like(parameter) for parameter in parameters]
        squares = []
        with (
            streams.in_use(own),
            Population(self.twin) as population,
            _Outputs(self.twin, self.activations) as outputs,
        ):
            for batch in drawn.to(labels.device).split(size):
                images = data.prepare(data.train.images[batch], self.config.normalization)
                loss = F.cross_entropy(self.twin(images), labels[batch])
                gradient = torch.autograd.grad(loss, parameters)
                squares.append(sum(part.square().sum() for part in gradient))
                for total, part in zip(mean, gradient, strict=True):
                    total += part / BATCHES
        with torch.no_grad():
            gradients = [part for part in mean if part.ndim > 1]
            for column, (gradient, weight) in enumerate(
                zip(gradients, _weights(self.twin), strict=True)
            ):
                table["gradient_norm"][row, column] = gradient.norm()
                table["weight_norm"][row, column] = weight.norm()
            small, large = torch.stack(squares).mean(), sum(part.square().sum() for part in mean)
            # McCandlish et al. 2018, appendix A.1: batches of `size` and of `BATCHES` times it.
            table["gradient_square"][row] = (BATCHES * large - small) / (BATCHES - 1)
            table["gradient_variance"][row] = (small - large) * size * BATCHES / (BATCHES - 1)
            columns = zip(population.statistics(), norms_of(self.model), strict=True)
            for column, ((_, mean_here, variance), norm) in enumerate(columns):
                deviation = (norm.running_var + norm.eps).sqrt()
                shift = (mean_here - norm.running_mean) / deviation
                stretch = (variance + norm.eps).sqrt() / deviation - 1
                table["lag"][row, column] = (shift**2 + stretch**2).mean().sqrt()
            for name, values in outputs.measured().items():
                table[name][row] = values

    def after(self, done: int) -> None:
        """To be called after each update, `done` of them lying behind."""
        if done - 1 not in self.rows:
            return
        pairs = zip(_weights(self.twin), _weights(self.model), strict=True)
        with torch.no_grad():
            for column, (old, new) in enumerate(pairs):
                change = (new - old).norm() / old.norm()
                self.table["relative_update"][self.rows[done - 1], column] = change

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


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of convolutions and linear layers."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def _kind(activation: nn.Module) -> str:
    """The measure that an activation has; "" if none."""
    if isinstance(activation, nn.ReLU):
        return "dead"
    return "saturated" if isinstance(activation, nn.Sigmoid | nn.Tanh) else ""


def _activations(model: nn.Module, data: Data) -> Iterator[tuple[str, nn.Module]]:
    """Every call of an activation that has a measure, in order, named by the layer with weights
    that comes before it."""
    name = ""
    for called, module, _, _ in probe(model, (1, *data.train.images.shape[1:])):
        if any(parameter.ndim > 1 for parameter in module.parameters()):
            name = called
        elif _kind(module):
            yield name, module


class _Outputs:
    """What comes out of a network's activations and goes into its last layer, over several batches.

    To be used as a context, in which the network passes the batches.
    """

    def __init__(self, model: nn.Module, activations: list[tuple[str, nn.Module]]) -> None:
        self.model, self.activations = model, activations
        self.noted: list[Tensor] = []  # of every call
        self.silenced: list[Tensor] = []

    def __enter__(self) -> "_Outputs":
        *_, last = (module for module in self.model.modules() if isinstance(module, nn.Linear))
        self.hooks = [last.register_forward_pre_hook(self._note_last)]
        modules = dict.fromkeys(module for _, module in self.activations)
        self.hooks += [module.register_forward_hook(self._note) for module in modules]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _note_last(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self.silenced.append((inputs[0] == 0).all(1).float().mean())

    @torch.no_grad()
    def _note(self, module: nn.Module, _: tuple[Tensor], output: Tensor) -> None:
        if _kind(module) == "dead":  # of each channel, the largest output
            self.noted.append(output.amax([d for d in range(output.ndim) if d != 1]))
            return
        slope = 1 - output**2  # tanh's derivative, at most 1
        if isinstance(module, nn.Sigmoid):
            slope = 4 * output * (1 - output)  # its derivative, over the maximum of 1/4
        self.noted.append((slope < 0.05).float().mean())

    def measured(self) -> dict[str, Tensor]:
        """`dead` or `saturated`, `[activations]`, and `silenced`."""
        found = {"silenced": torch.stack(self.silenced).mean()}
        many = len(self.activations)
        by_call = [torch.stack(self.noted[call::many]) for call in range(many)]
        for kind in {_kind(module) for _, module in self.activations}:
            found[kind] = torch.stack(
                [
                    (values.amax(0) == 0).float().mean() if kind == "dead" else values.mean()
                    for values in by_call
                ]
            )
        return found
