import copy

import pytest
import torch
import torch.nn.functional as F
import torture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit.core import layers, train
from labkit.core import model as models
from labkit.core.config import OPTIMIZERS, Config
from labkit.lab import graphs
from labkit.lab import slim as slimming
from labkit.lab.training import training_steps

SETTINGS = {
    "base": Config(),
    "no max-pool": Config(max_pool=False, activation="tanh"),
    "sigmoid": Config(activation="sigmoid", init="default"),
    "ResNet-34": Config(model="resnet34"),
    "LeNet-5": Config(model="cnn"),
}


def plain_and_slim(config, dtype=torch.float32):
    plain = models.build(config).to(dtype)
    return plain, slimming.slim(copy.deepcopy(plain))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_slim_model_is_the_same_function_with_the_same_gradients(small, name):
    """In double precision, where rounding is far below any real difference."""
    plain, slim = plain_and_slim(SETTINGS[name], torch.float64)
    x = small.prepare(small.train.images[:16], "mean-std").double()
    outputs = []
    for model in (plain, slim):
        outputs.append(model.train()(x))
        F.cross_entropy(outputs[-1], small.train.labels[:16]).backward()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
    reduced = 0
    for (key, theirs), (_, ours) in zip(
        plain.named_parameters(), slim.named_parameters(), strict=True
    ):
        gradient = theirs.grad
        module = slim.get_submodule(key.rpartition(".")[0])
        if isinstance(module, slimming.LiveConv2d) and key.endswith("weight"):
            live = gradient[module.live].permute(0, 2, 3, 1)
            dead = gradient.clone()
            dead[module.live] = 0
            assert not dead.any()  # what is left out would not have learned
            reduced += gradient.numel() - live.numel()
            gradient = live
        torch.testing.assert_close(ours.grad, gradient, rtol=1e-9, atol=1e-12)
    table = layers.layer_table(models.build(SETTINGS[name]))
    assert reduced == (table["parameters"] - table["can_learn"]).sum()
    assert (reduced > 0) == (name not in ("no max-pool", "LeNet-5"))
    assert not slimming.left(slim)
    torch.testing.assert_close(slim.eval()(x[:7]), plain.eval()(x[:7]), rtol=0, atol=1e-10)


def test_the_layer_table_says_what_can_learn():
    rows = layers.layer_table(models.build(Config())).set_index("name")
    assert rows.can_learn["layer4.1.conv1"] * 9 == rows.parameters["layer4.1.conv1"]
    assert rows.can_learn["layer4.0.conv1"] * 9 == rows.parameters["layer4.0.conv1"] * 4
    assert (rows.can_learn == rows.parameters)[:"layer3.1.bn2"].all()


def test_a_state_dict_goes_either_way(small):
    plain, slim = plain_and_slim(Config())
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    there = slim.state_dict()
    assert list(there) == list(before)
    assert all(torch.equal(there[key], before[key]) for key in before)
    config = Config(epochs=1)
    for _ in graphs.fit(slim, train.make_optimizer(slim, config), small, config):
        pass
    trained = slim.state_dict()
    assert trained["layer2.0.bn2.num_batches_tracked"] == trained["bn1.num_batches_tracked"] == 2
    dead = before["layer4.1.conv1.weight"].clone()
    live = trained["layer4.1.conv1.weight"][:, :, 1, 1]
    assert not torch.equal(dead[:, :, 1, 1], live)
    dead[:, :, 1, 1] = live
    assert torch.equal(trained["layer4.1.conv1.weight"], dead)  # they hold what they held
    plain.load_state_dict(trained)
    again = slimming.slim(models.build(Config(seed=9)))
    again.load_state_dict(trained)
    x = small.prepare(small.test.images, "mean-std")
    expected = slim.eval()(x)
    assert torch.equal(again.eval()(x), expected)
    torch.testing.assert_close(plain.eval()(x), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(again.state_dict()[key], trained[key]) for key in trained)


@pytest.mark.parametrize(
    ("optimizer", "model"),
    [*((name, "resnet18") for name in OPTIMIZERS), ("adam", "resnet34"), ("adam", "cnn")],
)
def test_the_fast_path_gives_the_plain_loops_losses(tiny, optimizer, model):
    # tanh, since a ReLU next to zero turns a rounding into another gradient
    settings = {"activation": "tanh", "lr": 0.0001, "batch_size": 24, "epochs": 2, "seed": 5}
    config = Config(optimizer=optimizer, model=model, **settings)
    plain, slim = plain_and_slim(config)
    theirs, ours = (
        [loss.item() for loss in fit(model, train.make_optimizer(model, config), tiny, config)]
        for fit, model in ((train.fit, plain), (graphs.fit, slim))
    )
    # BatchNorm sums in another order where the channels lie last, and rounds otherwise.
    assert ours[0] == pytest.approx(theirs[0], rel=2e-6)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_denormal_numbers_are_zero_only_while_it_trains(tiny):
    number = torch.tensor([1e-39])
    steps = training_steps(Config(epochs=1, batch_size=16), tiny, torch.device("cpu"))
    next(steps)
    assert (number * 1).numpy().view("uint32")[0] == 0
    steps.close()
    assert (number * 1).numpy().view("uint32")[0] != 0


def test_on_another_device_the_plain_loop_trains_and_says_so(tiny):
    meta = torch.device("meta")  # no numbers, but neither CPU nor CUDA
    config = Config(epochs=1, batch_size=20)
    model = models.build(config).to(meta)
    adam = torch.optim.Adam(model.parameters())
    with pytest.warns(UserWarning, match=r"meta devices have no CUDA graphs; the plain loop"):
        assert len(list(graphs.fit(model, adam, tiny.to(meta), config))) == 2


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("done", [0, 1])
def test_warming_up_leaves_no_trace(tiny, optimizer, done, monkeypatch):
    monkeypatch.setitem(models.ACTIVATION_MODULES, "relu", torture.dropping)
    config = Config(optimizer=optimizer, lr=0.001, batch_size=16, epochs=1)
    results = []
    for warm_up in (0, 2):
        model = slimming.slim(models.build(config))
        adam = train.make_optimizer(model, config)
        losses = graphs.fit(model, adam, tiny, config)
        torch.manual_seed(1)
        for _ in range(done):
            next(losses)
        with graphs.unchanged(model, adam):
            for _ in range(warm_up):
                train.step(model, adam, tiny, config, torch.arange(16))
        results.append([loss.item() for loss in losses])
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_all_pixels_meet_a_convolution_is_one_product(dtype):
    torch.manual_seed(0)
    cases = {  # size, kernel, stride, padding: pixels that come in, output pixels
        (2, 3, 1, 1): (4, 4),
        (2, 3, 2, 1): (4, 1),
        (2, 1, 2, 0): (1, 1),
        (1, 3, 1, 1): (1, 1),
        (3, 3, 2, 1): None,  # a corner does not meet the other
        (4, 1, 2, 0): None,
    }
    for (size, kernel, stride, padding), expected in cases.items():
        conv = nn.Conv2d(5, 4, kernel, stride, padding, bias=False).to(dtype)
        x = torch.randn(6, 5, size, size, dtype=dtype, requires_grad=True)
        y = conv(x)
        ours = slimming.LiveConv2d(conv, x.shape[2:], y.shape[2:])
        if expected is None:
            assert ours.dense is None
            continue
        (rows, columns), taps = ours.dense
        met = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert (met, len(taps)) == expected
        torch.testing.assert_close(ours(x), y)
        g = torch.randn_like(y)
        dx, dkernel = torch.autograd.grad(y, (x, conv.weight), g)
        ours_dx, ours_dweight = torch.autograd.grad(ours(x), (x, ours.weight), g)
        torch.testing.assert_close(ours_dx, dx)
        torch.testing.assert_close(ours_dweight, dkernel[ours.live].permute(0, 2, 3, 1))


SIDES = st.integers(1, 7)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(1, 3), st.integers(0, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_live_taps_give_any_convolution(height, width, rows, columns, stride, padding, bias):
    """Those that pad by more than half a kernel may stay as they are."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, (rows, columns), stride, padding, bias=bias).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    try:
        y = conv(x)
    except RuntimeError:  # the kernel is larger than the padded map
        return
    taps = layers.live_taps(conv, x.shape[2:], y.shape[2:])
    (kernel,) = torch.autograd.grad(y.square().sum(), conv.weight, retain_graph=True)
    live = kernel.abs().sum((0, 1)) > 0
    places = [set(live.nonzero()[:, axis].tolist()) for axis in (0, 1)]
    assert all(found <= set(along) for found, along in zip(places, taps, strict=True))
    slim = slimming.slim(nn.Sequential(copy.deepcopy(conv), nn.Flatten()), x.shape[1:])
    torch.testing.assert_close(slim(x), y.flatten(1))
    assert not slimming.left(slim) or 2 * padding >= min(rows, columns)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@needs_gpu
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "momentum"])
def test_cuda_graphs_give_the_plain_loops_bits(small, optimizer):
    config = Config(optimizer=optimizer, lr=0.001, epochs=2)
    data = small.to(torch.device("cuda"))
    results = []
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        for fit in (train.fit, graphs.fit):
            model = slimming.slim(models.build(config).cuda())
            adam = train.make_optimizer(model, config)
            results.append([loss.item() for loss in fit(model, adam, data, config)])
    assert results[0] == results[1]


@needs_gpu
def test_without_a_graph_the_plain_loop_trains_and_says_so(small, monkeypatch):
    def refused(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "capture", refused)
    config = Config(epochs=1)
    data = small.to(torch.device("cuda"))
    model = slimming.slim(models.build(config).cuda())
    with pytest.warns(UserWarning, match="no CUDA graph could be captured .*plain loop trains"):
        assert len(list(graphs.fit(model, train.make_optimizer(model, config), data, config))) == 2
