"""Random generators that depend on what they are for, never on who asked before."""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """Return the generator of one purpose, e.g. ``generator(seed, "batches", client, round)``.

    The same arguments give the same stream in every process and in any order of calls
    (``numpy.random.SeedSequence`` with a spawn key).
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, *key)))


def _sequence(seed: int, purpose: str, *key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *key))


def torch_seed(seed: int, purpose: str, *key: int) -> int:
    """Return a 63-bit integer for ``torch.manual_seed`` from the same family of streams."""
    return int(_sequence(seed, purpose, *key).generate_state(1, np.uint64)[0] >> np.uint64(1))
