"""What is drawn in a training, by dropout for example, comes from its seed alone."""

import pytest
import torch
from helpers import interrupted, train_run
from torture import dropping, same

from labkit.core import model
from labkit.core.config import Config
from labkit.lab import streams, workers
from labkit.lab.training import training_steps

CPU = torch.device("cpu")
CONFIG = Config(batch_size=16, epochs=2, lr=0.001)


@pytest.fixture(autouse=True)
def dropout(monkeypatch):
    """Networks with a dropout layer behind every activation."""
    monkeypatch.setitem(model.ACTIVATION_MODULES, "relu", dropping)


@pytest.fixture(scope="module")
def alone(tiny):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.ACTIVATION_MODULES, "relu", dropping)
        return [train_run(CONFIG.replace(seed=seed), tiny, CPU) for seed in (0, 1)]


def test_a_seed_decides_what_dropout_drops(tiny, alone):
    torch.manual_seed(99)  # of the user, who draws as well
    assert same(train_run(CONFIG, tiny, CPU), alone[0])
    assert not same(*alone)


def test_no_number_of_the_users_stream_is_used_up(tiny):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    train_run(CONFIG, tiny, CPU)
    assert torch.equal(torch.rand(4), expected)


def test_two_trainings_by_turns_are_those_that_ran_alone(tiny, alone):
    found, left = (
        {},
        {seed: training_steps(CONFIG.replace(seed=seed), tiny, CPU) for seed in (0, 1)},
    )
    while left:
        for seed, steps in list(left.items()):
            torch.rand(3)
            try:
                next(steps)
            except StopIteration as end:
                found[seed] = end.value
                del left[seed]
    assert all(same(found[seed], alone[seed]) for seed in found)


@pytest.mark.parametrize("at", [1, 4])
def test_a_training_that_goes_on_drops_what_it_would_have_dropped(
    at, tiny, alone, tmp_path, monkeypatch
):
    path = tmp_path / f"{CONFIG.digest('small')}.checkpoint"
    state = interrupted(CONFIG, tiny, path, at, monkeypatch)
    torch.manual_seed(99)
    run = train_run(CONFIG, tiny, CPU, checkpoint=state)
    assert len(run.provenance["resumed"]) == 1
    assert same(run, alone[0])


def test_masks_are_not_drawn_with_the_numbers_of_the_weights_or_the_order():
    first = {torch.rand(1, generator=streams.generators(s, CPU)[0]).item() for s in range(50)}
    plain = {torch.rand(1, generator=torch.Generator().manual_seed(s)).item() for s in range(50)}
    assert len(first) == 50 and not first & plain


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@needs_gpu
def test_on_a_gpu_by_turns_and_after_an_interruption_too(tiny, tmp_path, monkeypatch):
    """CUDA graphs draw as well, from the stream of their own run."""
    cuda = torch.device("cuda")
    seeds = [CONFIG.replace(seed=seed) for seed in range(3)]
    alone = [train_run(config, tiny, cuda) for config in seeds]
    at_once = workers.in_streams([training_steps(config, tiny, cuda) for config in seeds], cuda)
    assert all(same(*pair) for pair in zip(alone, at_once, strict=True))
    assert not same(alone[0], alone[1])
    path = tmp_path / f"{CONFIG.digest('small')}.checkpoint"
    state = interrupted(CONFIG, tiny, path, 4, monkeypatch, cuda)
    assert same(train_run(CONFIG, tiny, cuda, checkpoint=state), alone[0])
