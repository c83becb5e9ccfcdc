"""MemGuard: the prediction stays, the budget is kept, and ranks by confidence tell nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.records import Examples
from fedmia.releases.base import Owner
from fedmia.releases.coins import coins
from fedmia.releases.memguard import MemGuard
from fedmia.signals.forward import entropies, loss_and_gap

CLASSES = 5


class Said(nn.Module):
    """A model that says what is in the record: its logits."""

    def forward(self, x):
        return x


class Surer(nn.Module):
    """``h = a (largest score − b)``: whoever is surer than b is called a member."""

    def forward(self, scores):
        return 8 * (scores[:, -1] - 0.7)


def records(rng, n, gap):
    y = rng.integers(CLASSES, size=n)
    z = rng.normal(size=(n, CLASSES))
    z[np.arange(n), y] += gap * rng.uniform(0.6, 1.4, size=n)
    return Examples(z.astype(np.float32), y.astype(np.int64))


@pytest.fixture(scope="module")
def overfit():
    """Members that are read surely, and others that are not; with what the owner has."""
    rng = np.random.default_rng(0)
    members, others, asked = (records(rng, 120, gap) for gap in (8, 3, 3))
    return members, asked, Owner(Said(), members, others, seed=3)


@pytest.fixture(scope="module")
def shown(overfit):
    members, asked, owner = overfit
    guard = MemGuard(budget=2.0, hidden=[64, 32], epochs=200).guard(owner)
    return [(r, guard(torch.tensor(r.x), torch.tensor(r.x))) for r in (members, asked)]


def auc(members, others):
    wins = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    return float(np.mean(wins))


def distortion(z, e):
    return ((z + e).double().softmax(1) - z.double().softmax(1)).abs().sum(1)


def test_the_prediction_never_changes_so_that_the_label_alone_leaks_what_it_did(shown):
    for asked, outputs in shown:
        before = torch.tensor(asked.x)
        assert not torch.equal(outputs, before)
        assert torch.equal(outputs.argmax(1), before.argmax(1))


def test_attacks_that_rank_by_confidence_no_longer_find_members(overfit, shown):
    def aucs(of):
        losses = [-loss_and_gap(z, torch.tensor(r.y))[0].numpy() for r, z in of]
        entropy = [-entropies(z, torch.tensor(r.y))[0].numpy() for r, z in of]
        return auc(*losses), auc(*entropy)

    bare = [(r, torch.tensor(r.x)) for r in overfit[:2]]
    assert min(aucs(bare)) > 0.9
    assert max(aucs(shown)) < 0.6


def test_the_noise_takes_the_classifier_just_across_its_boundary():
    z = torch.tensor([[4.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 3.0, 1.0]])
    h = Surer()
    e, p = MemGuard(budget=2.0).mechanism(h, z)
    before = h(z.softmax(1).sort(1).values)
    after = h((z + e).softmax(1).sort(1).values)
    assert (torch.sign(before) == -torch.sign(after)).all()
    assert after.abs().max() < 0.5
    assert (p == 1).all()
    assert torch.equal((z + e).argmax(1), z.argmax(1))


def test_the_expected_distortion_is_within_the_budget_and_spends_it_where_it_has_to():
    z = torch.tensor(records(np.random.default_rng(1), 20, 6).x)
    free, _ = MemGuard(budget=2.0).mechanism(Surer(), z)
    moved = distortion(z, free)
    for budget in (0.0, 0.1):
        e, p = MemGuard(budget=budget).mechanism(Surer(), z)
        assert torch.equal(e, free)
        expected = p * moved
        assert expected.max() <= budget + 1e-12
        noised = p > 0
        torch.testing.assert_close(expected[noised], moved[noised].clamp(max=budget))


def test_noise_that_would_tell_more_is_never_added():
    class Both(nn.Module):
        """Nobody can be brought to its boundary: h has one sign."""

        def forward(self, scores):
            return 1 + scores[:, -1]

    z = torch.tensor([[4.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    e, p = MemGuard(budget=1.0).mechanism(Both(), z)
    assert not e.any()
    assert not p.any()


def test_the_coin_falls_as_often_as_said_and_the_same_way_at_every_query(overfit):
    members, _, owner = overfit
    x = torch.rand(4000, 3)
    draws = coins(7, x)
    assert abs(float((draws < 0.3).mean()) - 0.3) < 0.03
    np.testing.assert_array_equal(coins(7, x[40:60]), draws[40:60])
    assert (coins(8, x) != draws).all()

    guard = MemGuard(budget=0.3, hidden=[16], epochs=10).guard(owner)
    z = torch.tensor(members.x[:40])
    once, again = guard(z, z), guard(z, z)
    assert torch.equal(once, again)
    kept = (once == z).all(1)
    assert 0 < kept.sum() < len(z)
    torch.testing.assert_close(guard(z[5:10], z[5:10]), once[5:10], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budget": 2.5}, r"budget=2\.5: expected in \[0, 2\]"),
        ({"hidden": []}, r"hidden=\[\]: expected one or more positive integers"),
        ({"epochs": 0}, "epochs=0: expected at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0: expected more than 0 and finite"),
        ({"learning_rate": np.inf}, r"learning_rate=inf: expected more than 0 and finite"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ConfigError, match=f"^{said}$"):
        MemGuard(**settings)
