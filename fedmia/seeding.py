"""Random generators that depend on what they are for, never on who asked before."""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """Return the generator of one purpose, e.g. ``generator(seed, "batches", client, round)``.

    The same arguments give the same stream in every process and in any order of calls
    (``numpy.random.SeedSequence`` with a spawn key).
    """
    spawn_key = (zlib.crc32(purpose.encode()), *key)
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=spawn_key))


def torch_seed(seed: int, purpose: str, *key: int) -> int:
    """Return a 63-bit integer for ``torch.manual_seed`` from the same family of streams."""
    return int(generator(seed, purpose, *key).integers(2**63))
