import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.backprop import DenseNetwork
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP


def networks():
    torch.manual_seed(0)
    return {
        "mlp": MLP([7, 5])((2, 3), 4),
        "logistic": Logistic()((6,), 4),
        "without flattening": nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)),
    }


def batch(shape=(9, 6)):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=rng), torch.randint(0, 4, (shape[0],), generator=rng)


@pytest.mark.parametrize("name", networks())
def test_gradient_and_loss_are_those_of_autograd(name):
    module = networks()[name].double()
    x, y = batch((9, 2, 3) if name == "mlp" else (9, 6))
    x = x.double()
    grad = torch.full((sum(p.numel() for p in module.parameters()),), torch.nan).double()
    dense = DenseNetwork.of(module, grad)
    loss = cross_entropy(module(x), y)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, module.parameters())])

    found = dense.backward(x, y)

    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)


def test_parameters_changed_in_place_are_used():
    module = networks()["mlp"]
    grad = torch.zeros(sum(p.numel() for p in module.parameters()))
    dense = DenseNetwork.of(module, grad)
    x, y = batch()
    before = dense.backward(x, y).item()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    assert dense.backward(x, y).item() == pytest.approx(torch.tensor(4.0).log().item())
    assert before != pytest.approx(torch.tensor(4.0).log().item())


def frozen(module):
    module[1].weight.requires_grad_(False)
    return module


def tied(module):
    module[3].weight = module[1].weight
    return module


def hooked(module):
    module[1].register_forward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize(
    "other",
    [
        nn.Linear(6, 4),
        nn.Sequential(),
        nn.Sequential(nn.Linear(6, 4), nn.ReLU()),
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 4)),
        nn.Sequential(nn.Flatten(0), nn.Linear(6, 4)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)),
        frozen(MLP([6])((6,), 4)),
        tied(MLP([6])((6,), 6)),
        hooked(MLP([6])((6,), 4)),
    ],
)
def test_anything_else_is_left_to_autograd(other):
    module = copy.deepcopy(other)
    grad = torch.zeros(sum(p.numel() for p in module.parameters()))
    assert DenseNetwork.of(module, grad) is None
