import numpy as np
import torch
from torch import nn

from fedmia.records import Examples
from fedmia.seeding import generator
from fedmia.shadows.fitting import Fitter
from fedmia.shadows.rounds import average
from fedmia.training import FlatModel, LocalSGD


def shard(seed, n):
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(n, 4)).astype(np.float32), rng.integers(3, size=n))


def made(recipe):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    shards = [[shard(0, 3), shard(1, 8)], [shard(2, 5), shard(3, 6)]]
    x, y = torch.tensor(shards[0][0].x), torch.tensor(shards[0][0].y)
    starts = {k: torch.stack([v, v * 0.5]) for k, v in model.state_dict().items()}
    return model, shards, starts, Fitter(model, recipe, x, y)


def test_rounds_are_federated_averaging_of_local_sgd():
    recipe = LocalSGD(local_epochs=2, batch_size=4, lr=0.1)
    model, shards, starts, fitter = made(recipe)

    result = average(fitter, starts, shards, 3, seed=7)

    local = FlatModel(model)
    for f, clients in enumerate(shards):
        params = {k: v[f].numpy() for k, v in starts.items()}
        for t in (1, 2, 3):
            sent = []
            for k, client in enumerate(clients):
                local.load(params)
                rng = generator(7, "shadow batches", f, k, t)
                recipe.fit(local, torch.tensor(client.x), torch.tensor(client.y), rng)
                sent.append(local.params())
            a, b = map(len, clients)
            params = {k: (a * sent[0][k] + b * sent[1][k]) / (a + b) for k in params}
        for name, value in params.items():
            np.testing.assert_allclose(result[name][f], value, rtol=1e-5, atol=1e-6)


def test_every_round_is_shown_with_the_models_before_and_after():
    _, shards, starts, fitter = made(LocalSGD(local_epochs=1, lr=0.1))
    seen, ticks = [], []

    def note(server_round, models, clients):
        seen.append((server_round, models, clients))

    result = average(
        fitter, starts, shards, 2, seed=0, on_round=note, on_progress=lambda *t: ticks.append(t)
    )

    assert ticks == [(1, 2), (2, 2)]
    assert [t for t, *_ in seen] == [1, 2]
    for (_, _, clients), after in zip(seen, (seen[1][1], result), strict=True):
        for name, value in clients.items():
            mean = (3 * value[0] + 8 * value[1]) / 11
            torch.testing.assert_close(after[name][0], mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen[0][1]["0.weight"], starts["0.weight"])


def test_counters_of_batches_stay_whole_numbers():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    shards = [[shard(0, 4), shard(1, 8)]]
    x, y = torch.tensor(shards[0][0].x), torch.tensor(shards[0][0].y)
    starts = {k: v[None] for k, v in model.state_dict().items()}
    recipe = LocalSGD(local_epochs=1, batch_size=4)

    result = average(Fitter(model, recipe, x, y), starts, shards, 1, seed=0)

    assert result["1.num_batches_tracked"].tolist() == [1]  # a third of 1 and two thirds of 2
    assert result["1.num_batches_tracked"].dtype == torch.int64
