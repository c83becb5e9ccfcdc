"""A client's round of DP-SGD beside plain training, a plain torch loop and Opacus', on one thread.

They follow one another in every repetition; times are the thread's own, which a busy machine
disturbs less, and ratios are medians over repetitions.

    python benchmarks/dp_sgd.py [--models mlp cnn] [--records 20] [--repeats 30]

``without noise`` is sampling and clipping alone; ``secure`` has noise that cannot be repeated.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.privacy.private_sgd import PrivateSGD
from fedmia.privacy.randomness import gaussian_source, uniform_source
from fedmia.training import FlatModel, LocalSGD

MODELS: dict[str, tuple[Callable[[tuple[int, ...], int], nn.Module], tuple[int, ...]]] = {
    "logistic": (Logistic(), (64,)),
    "mlp": (MLP(), (64,)),
    "cnn": (CNN(), (1, 8, 8)),
    "resnet18": (ResNet18(16, 8), (3, 8, 8)),
}
CLASSES, CLIP, Z = 10, 1.0, 1.0


def private(
    recipe: LocalSGD, model: FlatModel, x: Tensor, y: Tensor, z: float, secure: bool = False
) -> None:
    """Train as :class:`clients.defenses.dp_sgd.DpSgd` does."""
    uniform = uniform_source(secure, 0, "draws")
    PrivateSGD(recipe, CLIP, z).train(model, x, y, uniform, gaussian_source(secure, 0, "noise"))


def opacus(recipe: LocalSGD, module: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return as many epochs of Opacus' own loop, made private once."""
    sgd = torch.optim.SGD(module.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    loader = DataLoader(TensorDataset(x, y), batch_size=recipe.batch_size)
    module, optimizer, loader = PrivacyEngine().make_private(
        module=module,
        optimizer=sgd,
        data_loader=loader,
        noise_multiplier=Z,
        max_grad_norm=CLIP,
    )

    def train() -> None:
        for _ in range(recipe.local_epochs):
            for some, labels in loader:
                optimizer.zero_grad()
                cross_entropy(module(some), labels).backward()
                optimizer.step()

    return train


def torch_loop(recipe: LocalSGD, module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Train as anybody would write it."""
    sgd = torch.optim.SGD(module.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    for _ in range(recipe.local_epochs):
        for batch in torch.randperm(len(y)).split(recipe.batch_size):
            sgd.zero_grad()
            cross_entropy(module(x[batch]), y[batch]).backward()
            sgd.step()


def ways(name: str, recipe: LocalSGD, n: int) -> dict[str, Callable[[], object]]:
    """Return what trains one client's model for a round, by names."""
    builder, shape = MODELS[name]
    module, ordinary = builder(shape, CLASSES), builder(shape, CLASSES)
    model, x, y = FlatModel(module), torch.rand(n, *shape), torch.randint(CLASSES, (n,))
    return {
        "plain": lambda: recipe.fit(model, x, y, np.random.default_rng(0)),
        "torch": lambda: torch_loop(recipe, ordinary, x, y),
        "without noise": lambda: private(recipe, model, x, y, 0.0),
        "seeded": lambda: private(recipe, model, x, y, Z),
        "secure": lambda: private(recipe, model, x, y, Z, secure=True),
        "Opacus": opacus(recipe, module, x, y),
    }


def measure(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every repetition, the first one left out."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            spent[name].append(time.thread_time() - start)
    return {name: seconds[1:] for name, seconds in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["logistic", "mlp", "cnn"], choices=MODELS)
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    recipe = LocalSGD(batch_size=arguments.batch_size)
    print("ms a round, and how many times the plain round's")
    columns = ("torch", "without noise", "seeded", "secure", "Opacus")
    print(f"{'model':10}{'plain':>8}" + "".join(f"{name:>16}" for name in columns))
    for name in arguments.models:
        spent = measure(ways(name, recipe, arguments.records), arguments.repeats)
        plain = np.array(spent["plain"])
        line = f"{name:10}{1000 * np.median(plain):8.1f}"
        for way in columns:
            ratio = np.median(np.array(spent[way]) / plain)
            line += f"{1000 * np.median(spent[way]):8.1f}{ratio:7.2f}x"
        print(line, flush=True)


if __name__ == "__main__":
    main()
