"""Gradient signals against one backward pass per candidate: `python benchmarks/signals.py`.

Cosine of 1,000 candidates with 10 clients' updates at one model, both ways in the same run,
alternating, best of several (more of the short ones); prints milliseconds and their ratio.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.signals.gradients import Route, trainable
from fedmia.signals.routes import plan_route

CANDIDATES, CLIENTS, REPEATS = 1000, 10, 5


def naive(model: nn.Module, x: Tensor, y: Tensor, flat: Tensor) -> Tensor:
    parameters = list(trainable(model).values())
    rows = []
    for i in range(len(y)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        rows.append(flat @ gradient / torch.linalg.vector_norm(gradient))
    return torch.stack(rows)


def fast(
    plan: tuple[Route, int],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    directions: dict[str, Tensor],
) -> Tensor:
    route, rows = plan
    parts = []
    for i in range(0, len(y), rows):
        _, squares, dots = route(model, x[i : i + rows], y[i : i + rows], directions)
        parts.append(dots.sum(2) / squares.sum(1).sqrt()[:, None])
    return torch.cat(parts)


def milliseconds(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = function()
    return (time.perf_counter() - start) * 1e3, result


def compare(name: str, model: nn.Module, shape: tuple[int, ...]) -> None:
    x, y = torch.randn(CANDIDATES, *shape), torch.randint(10, (CANDIDATES,))
    flat = torch.randn(CLIENTS, sum(p.numel() for p in model.parameters()))
    flat /= torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    parameters = trainable(model)
    pieces = flat.split([p.numel() for p in parameters.values()], dim=1)
    directions = {
        k: piece.reshape(CLIENTS, *p.shape)
        for (k, p), piece in zip(parameters.items(), pieces, strict=True)
    }
    plan = plan_route(model, x, y)  # once a transcript, not once a round
    slow_ms, fast_ms = [], []
    for _ in range(REPEATS):
        elapsed, expected = milliseconds(lambda: naive(model, x, y, flat))
        slow_ms.append(elapsed)
        for _ in range(3):
            elapsed, measured = milliseconds(lambda: fast(plan, model, x, y, directions))
            fast_ms.append(elapsed)
    # Beside a ReLU's kink or a tie in max-pooling, rounding picks another subgradient.
    torch.testing.assert_close(measured, expected, rtol=0, atol=1e-4)
    print(
        f"{name:12} one by one {min(slow_ms):8.1f} ms   signals {min(fast_ms):7.1f} ms   "
        f"ratio {min(slow_ms) / min(fast_ms):5.1f}"
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    compare("mlp 64", MLP()((64,), 10), (64,))
    compare("cnn 8x8", CNN()((1, 8, 8), 10), (1, 8, 8))
    compare("cnn 3x32x32", CNN()((3, 32, 32), 10), (3, 32, 32))
