"""Cosines through each lens against the plain ones: `python benchmarks/lenses.py`.

30 rounds of 10 clients, 1,100 candidates, a network of 85,002 parameters, from a transcript on
disk, one thread; prints processor seconds and the ratio to the plain cosines of the same
transcript. ``--rounds 3 --written`` has every gradient written down.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fedmia.models.mlp import MLP
from fedmia.records import Capability, Examples, Observation, Update
from fedmia.signals import Signals, compared
from fedmia.signals.lenses import Composed, Lens, LowFrequencies, Signs, Transmitted, Without
from fedmia.transcript import Transcript, TranscriptWriter

CLIENTS, CANDIDATES = 10, 1100
LENSES: tuple[Lens, ...] = (
    Transmitted(),
    Signs(),
    LowFrequencies(0.1),
    LowFrequencies(0.5),
    Without(("1",)),
    Composed((Transmitted(), Signs())),
    Composed((LowFrequencies(0.5), Transmitted())),
)


def record(folder: Path, model: torch.nn.Module, rounds: int) -> Transcript:
    """Write a transcript of random updates of which a tenth is sent."""
    rng = np.random.default_rng(0)
    writer = TranscriptWriter(folder, "server", list(Capability))
    params = {k: v.numpy() for k, v in model.state_dict().items()}
    for t in range(1, rounds + 1):
        updates = tuple(
            Update(node, 20, {k: sparse(rng, v.shape) for k, v in params.items()})
            for node in range(CLIENTS)
        )
        writer.append(Observation(t, params, tuple(range(CLIENTS)), updates))
    writer.finish(params)
    return Transcript(folder)


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random array of which nine tenths are zero."""
    sent = rng.random(shape) < 0.1
    return np.where(sent, rng.standard_normal(shape), 0).astype(np.float32)


def main() -> None:
    """Print a line a lens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--written", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = MLP(hidden=[256, 256])((64,), 10)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((CANDIDATES, 64)).astype(np.float32)
    candidates = Examples(x, rng.integers(0, 10, CANDIDATES))
    if asked.written:

        def refuse(*_: object) -> None:
            raise TypeError("asked to write gradients down")

        compared.dense = refuse  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        transcript = record(Path(folder) / "t", model, asked.rounds)
        plain = Signals(transcript, model, candidates, None)
        start = time.process_time()
        plain.cosine.sum()
        before = time.process_time() - start
        print(f"{'plain':45} {before:6.2f} s")
        for lens in LENSES:
            start = time.process_time()
            plain.through(lens).cosine.sum()
            spent = time.process_time() - start
            print(f"{lens!s:45} {spent:6.2f} s   {spent / before:5.1f} x")


if __name__ == "__main__":
    main()
