"""HAMP's outputs: scores of random records, in the order of the record's own."""

import numpy as np
import pytest
import torch

from fedmia.errors import ConfigError
from fedmia.models.mlp import MLP
from fedmia.records import Examples
from fedmia.releases.base import Owner
from fedmia.releases.hamp_output import HampOutput


@pytest.fixture(scope="module")
def world():
    torch.manual_seed(0)
    model = MLP([16])((4,), 5).eval()
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 7, (300, 4)).astype(np.float32)
    records = Examples(x, rng.integers(5, size=300))
    with torch.no_grad():
        logits = 20 * model(torch.tensor(x))
    return Owner(model, records, records[:0], seed=1), torch.tensor(x), logits


def test_the_order_of_classes_stays_and_everything_else_is_a_random_records(world):
    owner, x, logits = world
    shown = HampOutput(pool=8).guard(owner)(x, logits)
    assert torch.equal(shown.argsort(1), logits.argsort(1))
    kinds = torch.unique(shown.sort(1).values, dim=0)
    assert len(kinds) == 8
    assert torch.allclose(kinds.exp().sum(1), torch.ones(8))
    sure = logits.softmax(1).amax(1)
    assert abs(np.corrcoef(sure, shown.softmax(1).amax(1))[0, 1]) < 0.2


def test_the_random_records_lie_between_the_members_extremes(world):
    owner, x, _ = world
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    HampOutput(pool=500).guard(Owner(Watched(), owner.members, owner.others, 1))
    (pool,) = seen
    assert pool.shape == (500, 4)
    assert pool.dtype == torch.float32
    assert (pool.amin(0) >= x.amin(0)).all()
    assert (pool.amax(0) <= x.amax(0)).all()
    assert (pool.amax(0) - pool.amin(0) > 9).all()


def test_the_same_record_has_the_same_answer_in_any_batch(world):
    owner, x, logits = world
    guard = HampOutput(pool=50).guard(owner)
    assert torch.equal(guard(x, logits)[30:40], guard(x[30:40], logits[30:40]))
    other = HampOutput(pool=50).guard(Owner(owner.model, owner.members, owner.others, 2))
    assert not torch.equal(guard(x, logits), other(x, logits))


def test_an_empty_pool_is_refused():
    with pytest.raises(ConfigError, match=r"^pool=0: expected at least 1$"):
        HampOutput(0)
