import pytest
import torch
from torch import nn

from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.signals.last_layer import last_layer_norm

CLASSES = 4


def by_autograd(model, last, x, y):
    norms = []
    for i in range(len(y)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        own = [p for p in last.parameters() if p.requires_grad]
        pieces = torch.autograd.grad(loss, own)
        norms.append(torch.sqrt(sum(g.square().sum() for g in pieces)))
    return torch.stack(norms)


def flattened():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, CLASSES), nn.Flatten())


def partly_frozen(*names):
    model = MLP(hidden=[5])((6,), CLASSES)
    for name in names:
        getattr(model[-1], name).requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("build", "shape", "last"),
    [
        (lambda: MLP(hidden=[16, 5])((6,), CLASSES), (6,), -1),
        (lambda: CNN(channels=[4, 6], hidden=8)((1, 8, 8), CLASSES), (1, 8, 8), -1),
        (lambda: ResNet18(width=4, groups=2)((3, 8, 8), CLASSES), (3, 8, 8), -1),
        (lambda: nn.Sequential(nn.Linear(6, CLASSES, bias=False)), (6,), -1),
        (lambda: partly_frozen("bias"), (6,), -1),
        (lambda: partly_frozen("weight"), (6,), -1),
        (flattened, (6,), -2),
    ],
    ids=["mlp", "cnn", "resnet18", "no bias", "frozen bias", "frozen weight", "flattened"],
)
def test_the_closed_form_is_what_autograd_gives(build, shape, last):
    torch.manual_seed(0)
    model = build().double().eval()
    x, y = torch.randn(9, *shape, dtype=torch.float64), torch.randint(CLASSES, (9,))
    measured = last_layer_norm(model, x, y)
    assert measured.dtype == torch.float64
    torch.testing.assert_close(measured, by_autograd(model, model[last], x, y), rtol=1e-10, atol=0)


def test_one_candidate_worked_out_by_hand():
    # p - e_y = (-1/2, 1/2), h = (3, 4): ‖p - e_y‖² (‖h‖² + 1) = 1/2 · 26.
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    norm = last_layer_norm(model, torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
    assert norm.item() == pytest.approx(13**0.5)


class Twice(nn.Module):
    """Goes through the last layer twice, so that its gradient is a sum."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        return self.last(torch.tanh(self.last(x)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(CLASSES, CLASSES), nn.Linear(CLASSES, CLASSES)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


class Cooled(nn.Module):
    """Divides the logits in place: what the layer gave is not what the loss sees."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        return self.last(x).div_(2.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(CLASSES, CLASSES), nn.Tanh()),
        lambda: nn.Linear(CLASSES, CLASSES).requires_grad_(False),
        Twice,
        Tied,
        Cooled,
    ],
    ids=["an activation on top", "frozen", "called twice", "tied", "changed in place"],
)
def test_other_last_layers_are_refused(build):
    model = build()
    with pytest.raises(NotImplementedError, match=r"^last_layer_norm: the logits of \w+ are not"):
        last_layer_norm(model, torch.randn(3, CLASSES), torch.zeros(3, dtype=torch.int64))
    assert not any(module._forward_hooks for module in model.modules())
