"""Ingredients change what they say, and nothing else of local SGD."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.regularized import RegularizedSGD, Session, adding
from fedmia.training import FlatModel, LocalSGD

RECIPE = {"local_epochs": 3, "batch_size": 4, "lr": 0.1, "weight_decay": 0.01}
SHAPE, CLASSES = (1, 4, 4), 3


def data(n=10):
    rng = torch.Generator().manual_seed(1)
    return torch.rand((n, *SHAPE), generator=rng), torch.arange(n) % CLASSES


def model(builder=None):
    torch.manual_seed(0)
    return FlatModel((builder or MLP([6, 5]))(SHAPE, CLASSES))


def normalised(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, classes))


def trained(recipe, builder=None, seed=3):
    net = model(builder)
    loss = recipe.fit(net, *data(), np.random.default_rng(seed))
    return net.params(), loss


@dataclass(frozen=True)
class Given:
    """Begins the session that it was given."""

    session: Session

    def begin(self, model, x, y, rng):
        return self.session


def with_(*sessions, **settings):
    return RegularizedSGD(**RECIPE | settings, ingredients=tuple(map(Given, sessions)))


@dataclass
class Log(Session):
    """Writes down what it is asked."""

    name: str
    log: list = field(default_factory=list)
    stop_after: int = 99

    def records(self, x, y):
        self.log.append(f"{self.name} records")
        return x, y

    def epoch(self, number, x, targets):
        self.log.append(f"{self.name} epoch {number}")
        return x, targets

    def batch(self, x, targets):
        self.log.append(f"{self.name} batch of {len(x)}")
        return x, targets

    def residual(self, logits, targets, delta, losses):
        self.log.append(f"{self.name} residual")
        return delta, losses

    def after(self, number):
        self.log.append(f"{self.name} after {number}")
        return number >= self.stop_after

    def end(self):
        self.log.append(f"{self.name} end")


@pytest.mark.parametrize("sessions", [(), (Session(),), (Log("a"), Log("b"))], ids=len)
@pytest.mark.parametrize(
    ("builder", "error"), [(None, 0.0), (CNN([2], 5), 1e-6), (normalised, 1e-4)]
)
def test_what_changes_nothing_leaves_the_numbers_of_local_sgd(builder, error, sessions):
    wanted, wanted_loss = trained(LocalSGD(**RECIPE), builder)
    found, loss = trained(with_(*sessions), builder)
    for name, value in wanted.items():
        assert np.allclose(found[name], value, rtol=0, atol=error), name
    assert loss == pytest.approx(wanted_loss, rel=1e-5)


def test_hooks_are_called_in_the_order_of_the_ingredients():
    log = []
    trained(with_(Log("a", log), Log("b", log), local_epochs=1, batch_size=8))
    steps = [f"{n} {what}" for b in (8, 2) for what in (f"batch of {b}", "residual") for n in "ab"]
    start = ["a records", "b records", "a epoch 1", "b epoch 1"]
    assert log == [*start, *steps, "a after 1", "b after 1", "b end", "a end"]


def test_training_stops_when_one_of_them_says_so_and_all_are_asked():
    log = []
    trained(with_(Log("a", log, stop_after=2), Log("b", log)))
    asked = [line for line in log if "after" in line]
    assert asked == [f"{name} after {number}" for number in (1, 2) for name in "ab"]


def test_sessions_end_also_after_an_exception():
    class Failing(Session):
        def batch(self, x, targets):
            raise RuntimeError("broken")

    log = []
    with pytest.raises(RuntimeError, match="broken"):
        trained(with_(Log("a", log), Failing()))
    assert log[-1] == "a end"


def test_held_out_records_are_neither_trained_on_nor_shown_to_later_ingredients():
    class HoldingOut(Session):
        def records(self, x, y):
            return x[:6], y[:6]

    @dataclass(frozen=True)
    class Looking:
        seen: list

        def begin(self, model, x, y, rng):
            self.seen.append(len(y))
            return Session()

    seen = []
    net, (x, y) = model(), data()
    recipe = RegularizedSGD(**RECIPE, ingredients=(Given(HoldingOut()), Looking(seen)))
    recipe.fit(net, x, y, np.random.default_rng(3))
    wanted = model()
    LocalSGD(**RECIPE).fit(wanted, x[:6], y[:6], np.random.default_rng(3))
    assert torch.equal(net.flat, wanted.flat)
    assert seen == [6]


def test_ingredients_draw_from_streams_of_their_own():
    drawn = []

    class Drawing:
        def begin(self, model, x, y, rng):
            drawn.append(rng.random())
            return Session()

    recipe = RegularizedSGD(**RECIPE, ingredients=(Drawing(), Drawing()))
    found, _ = trained(recipe)
    trained(recipe)
    trained(recipe, seed=4)
    wanted, _ = trained(LocalSGD(**RECIPE))
    assert all(np.array_equal(found[k], wanted[k]) for k in wanted)  # the order is the same
    assert drawn[:2] == drawn[2:4]
    assert len(set(drawn)) == 4


class Halved(Session):
    """Half of the loss."""

    def residual(self, logits, targets, delta, losses):
        return delta / 2, losses / 2


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
def test_half_a_loss_has_half_the_gradient(builder):
    halved, half = trained(with_(Halved(), local_epochs=1, weight_decay=0.0, lr=0.1), builder)
    plain = LocalSGD(**RECIPE | {"local_epochs": 1, "weight_decay": 0.0, "lr": 0.05})
    wanted, loss = trained(plain, builder)
    for name, value in wanted.items():
        assert np.allclose(halved[name], value, atol=1e-6), name
    assert half == pytest.approx(loss / 2, rel=1e-5)


def test_soft_targets_have_the_gradient_worked_out_by_hand():
    class Even(Session):
        def batch(self, x, targets):
            return x, torch.tensor([[0.25, 0.75]])

    linear = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        linear.weight.zero_()
    net = FlatModel(linear)
    recipe = with_(Even(), local_epochs=1, lr=0.5, momentum=0.0, weight_decay=0.0)
    loss = recipe.fit(net, torch.tensor([[2.0]]), torch.tensor([1]), np.random.default_rng(0))
    # p = (½, ½), so δ = (¼, −¼), and the gradient is 2δ
    assert net.params()["weight"].ravel().tolist() == pytest.approx([-0.25, 0.25])
    assert loss == pytest.approx(np.log(2))


def test_adding_keeps_the_recipe_and_puts_the_ingredient_last():
    first, second = Given(Session()), Given(Log("b"))
    base = LocalSGD(**RECIPE)
    recipe = adding(adding(base, first), second)
    assert recipe == RegularizedSGD(**RECIPE, ingredients=(first, second))


def test_a_recipe_with_steps_of_its_own_is_refused_in_one_line():
    class Own(LocalSGD):
        pass

    expected = r"^train=Own: expected LocalSGD \(train=local_sgd\), to whose steps Given adds$"
    with pytest.raises(ConfigError, match=expected):
        adding(Own(), Given(Session()))


@pytest.mark.parametrize("builder", [MLP([6, 5]), CNN([2], 5)])
def test_hidden_inputs_are_scaled_while_training_and_only_meanwhile(builder):
    x, _ = data(5)

    def gradient(net):
        net.module.train()
        net.backward_through(x, lambda z: z.softmax(1))
        return net.grad.clone()

    plain = gradient(model(builder))
    net = model(builder)
    shapes = []
    with net.hidden_scaled(lambda a: shapes.append(a.shape[1:]) or torch.zeros_like(a)):
        cut = gradient(net)
        evaluated = net.module.eval()(x)
    assert len(shapes) == 2
    assert torch.equal(evaluated, model(builder).module.eval()(x))
    last = CLASSES * shapes[-1].numel() + CLASSES
    assert not cut[:-last].any()  # behind a zero nothing moves
    assert plain[:-last].any()
    assert torch.equal(gradient(net), plain)
    assert not any(layer._forward_pre_hooks for layer in net.module.modules())


def test_hidden_scaling_has_the_gradient_of_autograd():
    (x, _), net = data(5), model()
    masks = [torch.tensor([0.0, 2, 2, 0, 1, 3]), torch.tensor([2.0, 0, 1, 0, 4])]
    given = iter(masks)
    with net.hidden_scaled(lambda a: next(given).expand_as(a)):
        net.backward_through(x, lambda z: z.softmax(1))
    layers = [layer for layer in net.module if isinstance(layer, nn.Linear)]
    a = layers[0](x.flatten(1)).relu() * masks[0]
    z = layers[2](layers[1](a).relu() * masks[1])
    parameters = list(net.module.parameters())
    wanted = torch.autograd.grad(z, parameters, z.detach().softmax(1) / 5)
    assert torch.allclose(net.grad, torch.cat([g.flatten() for g in wanted]), atol=1e-7)


def test_the_number_of_classes_is_found_without_moving_batch_statistics():
    net = model(normalised)
    before = net.params()
    net.module.train()
    assert net.num_classes(data()[0]) == CLASSES
    assert net.module.training
    assert all(np.array_equal(net.params()[k], before[k]) for k in before)


@pytest.mark.parametrize("builder", [MLP([6, 5]), CNN([2], 5)])
def test_a_copy_that_is_made_meanwhile_is_not_scaled(builder):
    x, _ = data(5)
    net, asked = model(builder), []
    with net.hidden_scaled(lambda a: asked.append(a) or torch.zeros_like(a)):
        copy = FlatModel(net.module)
        copy.module.train()
        copy.backward_through(x, lambda z: z.softmax(1))
    assert not asked
