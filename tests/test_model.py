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
@pytest.mark.parametrize(
    ("name", "blocks"), {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}.items()
)
def test_equal_to_torchvisions_with_copied_weights_either_way(images, ours_first, name, blocks):
    ours = ResNet(blocks=blocks, channels=3, classes=1000)
    theirs = getattr(torchvision.models, name)()
    source, target = (ours, theirs) if ours_first else (theirs, ours)
    target.load_state_dict(source.state_dict())
    for mode in (True, False):
        assert torch.equal(ours.train(mode)(images), theirs.train(mode)(images))
    ours_grads, theirs_grads = gradients(ours.train(), images), gradients(theirs.train(), images)
    assert ours_grads.keys() == theirs_grads.keys()
    for name in ours_grads:
        torch.testing.assert_close(ours_grads[name], theirs_grads[name])


def test_resnet34_is_built_with_its_blocks():
    theirs = torchvision.models.resnet34(num_classes=10)
    theirs.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    theirs.load_state_dict(build(Config(model="resnet34")).state_dict())


@pytest.mark.parametrize(("channels", "classes", "pixels"), [(1, 10, (28, 28)), (3, 4, (32, 24))])
def test_lenet_is_the_stack_of_layers_that_textbooks_print(channels, classes, pixels):
    config = Config(model="cnn", activation="sigmoid")
    ours = build(config, channels=channels, classes=classes, pixels=pixels)
    height, width = ((side // 2 - 4) // 2 for side in pixels)
    theirs = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(16 * height * width, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(),
        nn.Linear(84, classes),
    )  # fmt: skip
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(6, channels, *pixels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(images), theirs(images))
    if channels == 1:  # LeCun et al. 1998 have 60,000: they connect not every map to every other
        assert sum(p.numel() for p in ours.parameters()) == 61_706


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


@pytest.mark.parametrize("model", ["resnet34", "cnn"])
def test_layer_tables_of_other_networks_count_like_torchs_own_counters(model):
    network = build(Config(model=model))
    table = layer_table(network)
    assert table["parameters"].sum() == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 1, 28, 28))
    assert 2 * table["multiply_adds"].sum() == counter.get_total_flops()


def test_a_layer_table_counts_whatever_a_network_has():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, (3, 5), groups=3, dilation=2, padding="same", bias=True)
            self.mixing = nn.Linear(12, 12)  # used twice, of every row of the maps
            self.memory = nn.LSTM(12, 4, batch_first=True)
            self.shift = nn.Parameter(torch.zeros(4))
            self.unused = nn.Linear(5, 5)

        def forward(self, x):
            x = self.mixing(self.mixing(self.conv(x)))
            return self.memory(x.mean(1))[0][:, -1] + self.shift

    network = Network()
    table = layer_table(network, (3, 12, 12))
    assert table["parameters"].sum() == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False, depth=2) as counter:
        network(torch.zeros(1, 3, 12, 12))
    counted = counter.get_flop_counts()
    rows = table.drop_duplicates("name").set_index("name")
    assert 2 * rows.multiply_adds["conv"] == sum(counted["Network.conv"].values())
    assert 4 * rows.multiply_adds["mixing"] == sum(counted["Network.mixing"].values())
    assert rows.parameters["other parameters"] == 4 + 30
    assert rows.kernel["conv"] == "3×5" and rows.output_shape["conv"] == (6, 12, 12)


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
