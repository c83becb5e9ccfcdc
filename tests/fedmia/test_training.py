import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.errors import ConfigError
from fedmia.records import Examples
from fedmia.seeding import generator
from fedmia.site import Site
from fedmia.training import FlatModel, LocalSGD, accuracy, first_nonfinite


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tied(nn.Module):
    """An encoder and a decoder that share their weight."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 6)
        self.decode = nn.Linear(6, 6)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(torch.tanh(self.encode(x)))


class Counting(nn.Module):
    """A layer whose buffers are put in the place of older ones, not changed."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mask", torch.ones(6, dtype=torch.bool))

    def forward(self, x):
        if self.training:
            self.calls = self.calls + 1
        return self.linear(x * self.mask)


def frozen():
    model = mlp()
    model[0].weight.requires_grad_(False)
    return model


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def normalised():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def convolution():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


MODELS = {
    "mlp": mlp,
    "batch norm": normalised,
    "convolution": convolution,
    "tied": Tied,
    "frozen": frozen,
    "replaced buffers": Counting,
}


def data(n=11, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(n, 6)), dtype=torch.float32)
    return x, torch.tensor(rng.integers(3, size=n))


def made(make):
    torch.manual_seed(0)
    return make()


# one flat vector


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_parameters_and_buffers_survive_the_round_trip(make):
    module = made(make)
    state = {k: v.numpy().copy() for k, v in module.state_dict().items()}
    model = FlatModel(module)
    assert list(model.params()) == list(state)

    changed = {k: (~v if v.dtype == bool else (v + 1).astype(v.dtype)) for k, v in state.items()}
    model.load(changed)

    for name, value in model.params().items():
        assert value.dtype == state[name].dtype
        assert value.shape == state[name].shape
        assert np.array_equal(value, changed[name])
    for name, tensor in model.module.state_dict().items():
        assert np.array_equal(tensor.numpy(), changed[name])
    for name, tensor in module.state_dict().items():
        assert np.array_equal(tensor.numpy(), state[name]), "the original must not move"


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_flat_model_computes_what_the_module_does(make):
    module, (x, _) = made(make).eval(), data()

    assert torch.equal(FlatModel(module).module.eval()(x), module(x))


def test_parameters_handed_out_do_not_change_with_the_model():
    model = FlatModel(made(mlp))
    before = model.params()
    kept = {k: v.copy() for k, v in before.items()}

    LocalSGD(lr=0.1).fit(model, *data(), np.random.default_rng(0))

    assert all(np.array_equal(before[k], kept[k]) for k in kept)
    assert not np.array_equal(model.params()["0.weight"], kept["0.weight"])


def test_loading_copies_so_that_read_only_arrays_stay_as_they_are():
    model = FlatModel(made(normalised))
    params = model.params()
    for value in params.values():
        value.setflags(write=False)
    kept = {k: v.copy() for k, v in params.items()}

    model.load(params)
    LocalSGD().fit(model, *data(10), np.random.default_rng(0))

    assert all(np.array_equal(params[k], kept[k]) for k in kept)


def test_names_must_be_those_of_the_model():
    model = FlatModel(made(mlp))
    params = model.params()
    bias = params.pop("0.bias")

    with pytest.raises(ValueError, match=r"0\.bias"):
        model.load(params)
    with pytest.raises(ValueError, match="stranger"):
        model.load({**params, "0.bias": bias, "stranger": bias})


@pytest.mark.parametrize("name", ["0.weight", "1.running_mean", "1.num_batches_tracked"])
@pytest.mark.parametrize("shape", [(1,), (7,), (1, 5)], ids=str)
def test_a_wrong_shape_is_named_for_parameters_and_buffers_alike(name, shape):
    model = FlatModel(made(normalised))
    params = model.params() | {name: np.ones(shape, np.float32)}

    with pytest.raises(ValueError, match=name):
        model.load(params)


def test_shared_weights_move_as_one():
    model = FlatModel(made(Tied))

    LocalSGD(lr=0.1).fit(model, *data(), np.random.default_rng(0))

    params = model.params()
    assert np.array_equal(params["encode.weight"], params["decode.weight"])
    assert model.module.encode.weight.data_ptr() == model.module.decode.weight.data_ptr()


def test_frozen_parameters_stay_where_they_are():
    model = FlatModel(made(frozen))
    before = model.params()

    LocalSGD(lr=0.1, weight_decay=0.1).fit(model, *data(), np.random.default_rng(0))

    after = model.params()
    assert np.array_equal(after["0.weight"], before["0.weight"])
    assert not np.array_equal(after["0.bias"], before["0.bias"])


@pytest.mark.parametrize("make", [normalised, Counting], ids=["in place", "replaced"])
def test_buffers_that_training_changes_are_reported_and_can_be_set_back(make):
    model = FlatModel(made(make))
    counter = "1.num_batches_tracked" if make is normalised else "calls"
    before = model.params()
    recipe, (x, y) = LocalSGD(local_epochs=3, batch_size=5), data(10)

    recipe.fit(model, x, y, np.random.default_rng(0))
    assert model.params()[counter] == 6

    model.load(before)
    assert model.params()[counter] == 0
    recipe.fit(model, x, y, np.random.default_rng(0))
    assert model.params()[counter] == 6


def test_parameters_of_two_dtypes_are_refused():
    module = made(mlp)
    module[0].double()

    with pytest.raises(ValueError, match="one dtype"):
        FlatModel(module)


# local training


def reference(module, recipe, x, y, rng):
    """Train as the papers write it down, with torch's own optimiser; yield after each step."""
    module = copy.deepcopy(module).train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(
        parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    for _ in range(recipe.local_epochs):
        order, losses = rng.permutation(len(y)), []
        for start in range(0, len(y), recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            optimiser.zero_grad()
            loss = cross_entropy(module(x[batch]), y[batch])
            loss.backward()
            optimiser.step()
            losses += [loss.item()] * len(batch)
    return {k: v.numpy() for k, v in module.state_dict().items()}, np.mean(losses)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.0},
        {"momentum": 0.9},
        {"momentum": 0.0, "weight_decay": 0.05},
        {"momentum": 0.9, "weight_decay": 0.05, "lr": 0.01, "batch_size": 4},
        {"momentum": 0.5, "batch_size": 100},
    ],
    ids=str,
)
def test_local_training_takes_the_steps_of_torch(make, settings):
    x, y = data()
    for epochs in (1, 3):
        recipe = LocalSGD(**{"local_epochs": epochs, "batch_size": 3} | settings)
        module = made(make)
        model = FlatModel(module)

        loss = recipe.fit(model, x, y, np.random.default_rng(3))

        wanted, wanted_loss = reference(module, recipe, x, y, np.random.default_rng(3))
        found = model.params()
        for name, value in wanted.items():
            assert np.allclose(found[name], value, rtol=0, atol=1e-6), name
        assert loss == pytest.approx(wanted_loss, abs=1e-6)


def test_one_step_of_logistic_regression_is_the_one_worked_out_by_hand():
    linear = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        linear.weight.zero_()
    model = FlatModel(linear)

    loss = LocalSGD(1, 1, lr=0.5, momentum=0.0).fit(
        model, torch.tensor([[2.0]]), torch.tensor([1]), np.random.default_rng(0)
    )

    # p = (½, ½), so the gradient is x·(p − e_1) = 2·(½, −½)
    assert model.params()["weight"].ravel().tolist() == pytest.approx([-0.5, 0.5])
    assert loss == pytest.approx(np.log(2))


def test_momentum_starts_at_zero_in_every_round():
    recipe, (x, y) = LocalSGD(momentum=0.9), data()
    model = FlatModel(made(mlp))
    start = model.params()

    recipe.fit(model, x, y, np.random.default_rng(0))
    once = model.params()
    model.load(start)
    recipe.fit(model, x, y, np.random.default_rng(0))

    assert all(np.array_equal(model.params()[k], once[k]) for k in once)


def test_the_order_of_the_records_comes_from_the_generator():
    def trained(seed):
        model = FlatModel(made(mlp))
        LocalSGD(local_epochs=1).fit(model, *data(), np.random.default_rng(seed))
        return model.params()["0.weight"]

    assert np.array_equal(trained(1), trained(1))
    assert not np.array_equal(trained(1), trained(2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("local_epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-9),
        ("weight_decay", float("inf")),
    ],
)
def test_a_recipe_out_of_range_is_refused(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value}: expected"):
        LocalSGD(**{field: value})


# a client's own randomness


def site(partition_id, seed=0):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))
    return Site(partition_id, *data(), FlatModel(module), LocalSGD(), seed)


def fitted(partition_id, server_round, seed=0):
    client = site(partition_id, seed)
    client.fit(server_round)
    return b"".join(v.tobytes() for v in client.model.params().values())


def test_layers_that_draw_give_the_same_bytes_for_the_same_client_and_round():
    first = fitted(2, 5)
    torch.rand(100)

    assert fitted(2, 5) == first


def test_layers_that_draw_differ_between_clients_rounds_and_seeds():
    results = [fitted(2, 5), fitted(3, 5), fitted(2, 6), fitted(2, 5, seed=1)]

    assert len(set(results)) == 4


def test_the_masks_of_dropout_themselves_belong_to_client_and_round():
    """With one batch an epoch the order of records does not matter, only the masks do."""

    class InOrder:
        def permutation(self, n):
            return np.arange(n)

    def loss(partition_id, server_round):
        client = site(partition_id)
        recipe = LocalSGD(1, 100)
        trainer = type("T", (), {"fit": lambda _, m, x, y, rng: recipe.fit(m, x, y, InOrder())})()
        return Site(partition_id, client.x, client.y, client.model, trainer, 0).fit(server_round)

    assert loss(1, 1) == loss(1, 1)
    assert len({loss(1, 1), loss(2, 1), loss(1, 2)}) == 3


def test_a_site_names_its_streams_by_client_and_round():
    draws = site(4).rng("batches", 7).random(3)

    assert np.array_equal(draws, generator(0, "batches", 4, 7).random(3))


# evaluation


def test_accuracy_counts_hits_in_batches_of_any_size():
    x = np.eye(3, dtype=np.float32).repeat(4, axis=0)[:10]
    y = x.argmax(1)
    y[:3] = (y[:3] + 1) % 3
    model, examples = nn.Sequential(nn.Identity(), nn.Linear(3, 3)), Examples(x, y)
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3))
        model[1].bias.zero_()

    assert accuracy(model, examples) == 0.7
    assert accuracy(model, examples, batch_size=3) == 0.7
    assert accuracy(model, examples[3:]) == 1.0
    assert accuracy(model, examples[:3]) == 0.0


def test_accuracy_is_measured_without_dropout_and_without_moving_batch_statistics():
    model = FlatModel(made(normalised))
    before = model.params()
    model.module.train()

    accuracy(model.module, Examples(data()[0].numpy(), data()[1].numpy()))

    assert all(np.array_equal(model.params()[k], before[k]) for k in before)


def test_the_first_array_that_is_not_finite_is_named():
    fine = np.array([1.0, 2.0])

    assert first_nonfinite({"a": fine, "b": np.array([1, 2]), "c": np.array([True])}) is None
    assert first_nonfinite({"a": fine, "b": fine * np.nan, "c": fine * np.inf}) == "b"
    assert first_nonfinite({"a": np.array(np.inf, np.float32)}) == "a"
