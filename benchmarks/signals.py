"""Gradient signals against one backward pass per candidate: `python benchmarks/signals.py`.

Cosine of 1,000 candidates with 10 clients' updates at one model, both ways in the same run,
alternating, best of several (more of the short ones); prints milliseconds and their ratio.

``--resnet`` instead: 500 candidates, 10 clients, one round of ResNet-18 (11 million parameters),
from a transcript on disk, against the same loop over 32 candidates, extrapolated, both in processor
seconds of one thread; and the peak of resident memory. ``--long`` instead: three attacks on 300
rounds of 10 clients with 85,002 parameters, from disk, and the peak of resident memory.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmia.attacks.avg_cosine import AvgCosine
from fedmia.attacks.base import Knowledge, View
from fedmia.attacks.fedmia import FedMIA
from fedmia.attacks.loss_series import LossSeries
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.records import Capability, Examples, Observation, Update
from fedmia.signals import Signals
from fedmia.signals.gradients import Route, trainable
from fedmia.signals.routes import plan_route
from fedmia.transcript import Transcript, TranscriptWriter

CANDIDATES, CLIENTS, REPEATS = 1000, 10, 5
RESNET_CANDIDATES, RESNET_NAIVE = 500, 32
ROUNDS = 300


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


def record(folder: Path, model: nn.Module, rounds: int) -> None:
    """Write a transcript of random updates."""
    rng = np.random.default_rng(0)
    shows = [Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS]
    shows += [Capability.CLIENT_UPDATES, Capability.MANY_CLIENTS]
    writer = TranscriptWriter(folder, "server", shows)
    params = {k: v.numpy() for k, v in model.state_dict().items()}
    for t in range(1, rounds + 1):
        updates = tuple(
            Update(
                node,
                20,
                {
                    k: np.float32(1e-3) * rng.standard_normal(v.shape, dtype=np.float32)
                    for k, v in params.items()
                },
            )
            for node in range(CLIENTS)
        )
        writer.append(Observation(t, params, tuple(range(CLIENTS)), updates))


def random_examples(n: int, shape: tuple[int, ...]) -> Examples:
    rng = np.random.default_rng(1)
    return Examples(rng.standard_normal((n, *shape), dtype=np.float32), rng.integers(0, 10, n))


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, with its own memory and, as in runs, one thread."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (1,)) as pool:
        return pool.submit(function, *arguments).result()


def record_resnet(folder: Path) -> None:
    record(folder, ResNet18()((3, 32, 32), 10), 1)


def signals_of_resnet(folder: Path) -> tuple[float, float, float]:
    """Return processor seconds of signals and of the loop, extrapolated, and megabytes."""
    model = ResNet18()((3, 32, 32), 10)
    transcript = Transcript(folder)
    examples = random_examples(RESNET_CANDIDATES, (3, 32, 32))
    start = time.process_time()
    cosine = Signals(transcript, model, examples, None).cosine
    seconds, peak = time.process_time() - start, peak_megabytes()

    observation = transcript[0]
    model.load_state_dict({k: torch.from_numpy(v) for k, v in observation.params.items()})
    flat = torch.from_numpy(
        np.stack(
            [-np.concatenate([d.ravel() for d in u.delta.values()]) for u in observation.updates]
        )
    )
    flat /= torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    x, y = torch.from_numpy(examples.x[:RESNET_NAIVE]), torch.from_numpy(examples.y[:RESNET_NAIVE])
    naive(model.eval(), x[:1], y[:1], flat)
    start = time.process_time()
    expected = naive(model, x, y, flat)
    elapsed = time.process_time() - start
    measured = torch.from_numpy(cosine[0, :, :RESNET_NAIVE].T.copy())
    torch.testing.assert_close(measured, expected, rtol=0, atol=1e-4)
    return seconds, elapsed * RESNET_CANDIDATES / RESNET_NAIVE, peak


def resnet() -> None:
    with tempfile.TemporaryDirectory() as folder:
        alone(record_resnet, Path(folder))
        seconds, slow, peak = alone(signals_of_resnet, Path(folder))
    print(
        f"resnet18     one by one {slow:8.1f} s    signals {seconds:7.1f} s    "
        f"ratio {slow / seconds:5.1f}   peak {peak:.0f} MB"
    )


def record_long(folder: Path) -> None:
    record(folder, MLP()((64,), 10), ROUNDS)


def attack_long(folder: Path) -> tuple[float, float]:
    """Return seconds and megabytes of three attacks on every client."""
    examples = random_examples(CANDIDATES, (64,))
    start = time.perf_counter()
    transcript = Transcript(folder)
    signals = Signals(transcript, MLP()((64,), 10), examples, folder / "signals")
    view, knowledge = View(transcript, signals), Knowledge(examples[:0], 10)
    for attack in (LossSeries(), AvgCosine(), FedMIA()):
        for node in signals.nodes:
            attack(view, node, examples, knowledge)
    return time.perf_counter() - start, peak_megabytes()


def long() -> None:
    with tempfile.TemporaryDirectory() as folder:
        alone(record_long, Path(folder))
        seconds, peak = alone(attack_long, Path(folder))
    print(f"{ROUNDS} rounds   three attacks {seconds:5.1f} s   peak {peak:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--resnet", action="store_true", help="ResNet-18 instead")
    parser.add_argument("--long", action="store_true", help="300 rounds instead")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    if chosen.resnet:
        resnet()
    if chosen.long:
        long()
    if not (chosen.resnet or chosen.long):
        compare("mlp 64", MLP()((64,), 10), (64,))
        compare("cnn 8x8", CNN()((1, 8, 8), 10), (1, 8, 8))
        compare("cnn 3x32x32", CNN()((3, 32, 32), 10), (3, 32, 32))
