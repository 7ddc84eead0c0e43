import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from labkit.core.config import ACTIVATIONS, Config
from labkit.core.layers import layer_table
from labkit.core.model import ResNet, build


@pytest.fixture
def images():
    return torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def gradients(model, images):
    F.cross_entropy(model(images), torch.arange(6)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("ours_first", [True, False])
def test_equal_to_torchvisions_with_copied_weights_either_way(images, ours_first):
    ours = ResNet(channels=3, classes=1000)
    theirs = torchvision.models.resnet18()
    source, target = (ours, theirs) if ours_first else (theirs, ours)
    target.load_state_dict(source.state_dict())
    for mode in (True, False):
        assert torch.equal(ours.train(mode)(images), theirs.train(mode)(images))
    ours_grads, theirs_grads = gradients(ours.train(), images), gradients(theirs.train(), images)
    assert ours_grads.keys() == theirs_grads.keys()
    for name in ours_grads:
        torch.testing.assert_close(ours_grads[name], theirs_grads[name])


def test_structure_is_what_the_original_describes():
    model = ResNet()
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == (
        (7, 7),
        (2, 2),
        (3, 3),
    )
    for number in (1, 2, 3, 4):
        first, second = getattr(model, f"layer{number}")
        assert (first.downsample is not None) == (number > 1)
        assert first.conv1.stride == ((2, 2) if number > 1 else (1, 1))
        assert second.downsample is None and second.conv1.stride == (1, 1)
    weighted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert len(weighted) == 18


@pytest.mark.parametrize("max_pool", [True, False])
def test_layer_table_counts_like_torchs_own_counters(max_pool):
    model = build(Config(max_pool=max_pool))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = layer_table(model)
    assert table["parameters"].sum() == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 1, 28, 28))
    assert 2 * table["multiply_adds"].sum() == counter.get_total_flops()
    rows = table.set_index("name")
    assert rows.output_shape["conv1"] == (64, 14, 14)
    side = 1 if max_pool else 2
    assert rows.output_shape["layer4.1.conv2"] == (512, side, side)
    assert rows.output_shape["fc"] == (10,)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_activation_stands_in_every_place(name):
    function = {"silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}.get(name)
    function = function or getattr(F, name)
    model = build(Config(activation=name)).eval()
    places = [m for key, m in model.named_modules() if key.endswith("activation")]
    assert len(places) == 9  # the stem's, and one module a block, used twice
    x = torch.linspace(-3, 3, 50)
    for module in places:
        torch.testing.assert_close(module(x), function(x))


def test_the_seed_decides_the_weights_and_nothing_else_does():
    state = torch.random.get_rng_state()
    first, again, other = (build(Config(seed=seed)).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_initialisations_have_their_published_spread():
    kaiming, default = (
        build(Config(init=init)).layer3[1].conv1.weight for init in ("kaiming", "default")
    )
    fan = 256 * 9
    assert kaiming.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.01)
    assert default.std().item() == pytest.approx((1 / (3 * fan)) ** 0.5, rel=0.01)
