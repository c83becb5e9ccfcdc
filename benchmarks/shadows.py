"""Shadow models trained together against one after another: `python benchmarks/shadows.py`.

64 clients from one start, an MLP of 85,002 parameters, five epochs, both ways in the same run,
alternating, best of several, with one and with two torch threads (one after another: one thread,
which is its faster way). Then the reference models of a default run: 16 federations of 10 clients
with 20 records, 30 rounds, one thread. Wall and processor seconds.
"""

import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from fedmia.models.mlp import MLP
from fedmia.records import Examples
from fedmia.shadows import ShadowTraining
from fedmia.shadows.fitting import Fitter, Job
from fedmia.training import LocalSGD, torch_threads
from fedmia.vantages import Server

MODELS, REPEATS = 64, 3


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(records: int, batch: int) -> None:
    net = MLP()((64,), 10)
    x, y = torch.randn(MODELS, records, 64), torch.randint(10, (MODELS, records))
    starts = {k: v[None] for k, v in net.state_dict().items()}
    fitter = Fitter(net, LocalSGD(batch_size=batch), x[0], y[0])

    def train(together: bool, threads: int) -> None:
        fitter.together = together
        jobs = [Job(0, x[i], y[i], np.random.default_rng(i), i) for i in range(MODELS)]
        with torch_threads(threads):
            for _ in fitter.fit(starts, jobs):
                pass

    ways = {"one by one": (False, 1), "together": (True, 1), "together, 2 threads": (True, 2)}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            spent[name].append(seconds(lambda way=way: train(*way)))  # type: ignore[misc]
    plain = [min(column) for column in zip(*spent["one by one"], strict=True)]
    for name, pairs in spent.items():
        wall, processor = (min(column) for column in zip(*pairs, strict=True))
        print(
            f"{records:4} records, batches of {batch:2}  {name:20} {wall:6.2f} s "
            f"(ratio {plain[0] / wall:4.1f})   processor {processor:6.2f} s "
            f"(ratio {plain[1] / processor:4.1f})"
        )


def default() -> None:
    rng = np.random.default_rng(0)
    records = Examples(rng.normal(size=(600, 64)).astype(np.float32), rng.integers(10, size=600))
    model = MLP()((64,), 10)
    shadows = ShadowTraining(model, LocalSGD(), records, records, [20] * 10, 30, 16, 2, Server(), 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch_threads(1):
        wall, processor = seconds(shadows.federations)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"16 federations x 10 clients x 20 records x 30 rounds: {wall:.1f} s, "
        f"processor {processor:.1f} s, {grown:.0f} MB more memory"
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    compare(20, 5)
    compare(200, 20)
    default()
