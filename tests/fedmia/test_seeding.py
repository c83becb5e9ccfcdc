import subprocess
import sys

import numpy as np
import torch

from fedmia.seeding import generator, torch_seed


def first(*args):
    return tuple(generator(*args).integers(2**60, size=4))


def test_the_same_arguments_give_the_same_stream_whoever_asked_before():
    wanted = first(7, "batches", 3, 5)
    generator(7, "dropout", 3, 5).random(1000)
    np.random.default_rng(0).random(10)

    assert first(7, "batches", 3, 5) == wanted


def test_seed_purpose_client_and_round_each_change_the_stream():
    streams = [
        first(7, "batches", 3, 5),
        first(8, "batches", 3, 5),
        first(7, "dropout", 3, 5),
        first(7, "batches", 4, 5),
        first(7, "batches", 3, 6),
        first(7, "batches", 5, 3),
        first(7, "batches", 3),
        first(7, "batches"),
    ]

    assert len(set(streams)) == len(streams)


def test_a_stream_is_the_same_in_another_process():
    code = "from fedmia.seeding import torch_seed; print(torch_seed(7, 'batches', 3, 5))"

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert int(printed) == torch_seed(7, "batches", 3, 5)


def test_streams_of_neighbouring_keys_are_uncorrelated():
    draws = np.array([generator(0, "x", k).normal(size=500) for k in range(20)])

    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]

    assert np.abs(correlations).max() < 5 / np.sqrt(500)


def test_every_torch_seed_is_one_that_torch_takes():
    seeds = [torch_seed(0, "layers", k) for k in range(200)]

    assert len(set(seeds)) == 200
    assert all(0 <= s < 2**63 for s in seeds)
    torch.Generator().manual_seed(max(seeds))
