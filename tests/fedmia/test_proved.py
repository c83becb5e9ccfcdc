from types import SimpleNamespace

import numpy as np
import pytest

from fedmia import audit, proved
from fedmia.seeding import generator

OWNER = np.repeat([0, 1, -1], [60, 60, 240])
INDEX = np.random.default_rng(0).permutation(400)[: OWNER.size]
LABELS = np.random.default_rng(1).integers(0, 3, 400)


def stage(owner=None):
    dataset = SimpleNamespace(y=LABELS, owner=owner, num_classes=3)
    return SimpleNamespace(seed=4, dataset=dataset, candidates=SimpleNamespace(index=INDEX))


def scores(strength):
    noise = np.random.default_rng(2).normal(size=(2, OWNER.size))
    return {"a": noise + strength * (np.arange(2)[:, None] == OWNER)}


@pytest.mark.parametrize("delta", [0.0, 1e-5])
def test_the_bound_is_that_of_the_audit_on_pairs_of_one_label(delta):
    mine = proved.epsilon(stage(), scores(2.0), OWNER, delta)
    rng = generator(4, "audit")
    assert mine == audit.epsilon_one_run_from_attacks(
        scores(2.0), OWNER, LABELS[INDEX], delta, proved.CONFIDENCE, rng
    )
    assert 1.0 < mine[0] < mine[1]


def test_a_larger_delta_proves_less():
    small, large = (proved.epsilon(stage(), scores(3.0), OWNER, d) for d in (0.0, 1e-2))
    assert large[0] < small[0]
    assert large[1] < small[1]


def test_where_records_have_owners_pairs_are_of_one_owner():
    # records of owner 0 are members, those of owner 1 are not: there is no pair
    owner = np.zeros(400, dtype=int)
    owner[INDEX] = OWNER == -1
    assert proved.epsilon(stage(owner), scores(2.0), OWNER, 0.0) == (0.0, 0.0)


def test_canaries_are_judged_by_their_coins():
    host = np.arange(OWNER.size) % 2
    owner = np.where(np.arange(OWNER.size) % 3 == 0, host, -1)
    found = {"a": scores(0.0)["a"] + 3.0 * (np.arange(2)[:, None] == owner)}
    rng = generator(4, "audit")
    mine = proved.epsilon(stage(), found, owner, 1e-5, host)
    assert mine == audit.epsilon_one_run_from_coins(found, owner, host, 1e-5, 0.95, rng)
    assert mine[0] > 0.5


def test_the_same_scores_prove_the_same_at_every_call():
    assert proved.epsilon(stage(), scores(1.0), OWNER, 0.0) == proved.epsilon(
        stage(), scores(1.0), OWNER, 0.0
    )


def test_claims_and_bounds_are_merged_by_round():
    claimed = [{"round": 1, "epsilon_claimed": 1.0}, {"round": 3, "epsilon_claimed": 2.0}]
    bounds = [{"round": r, "epsilon_lower_bound": 0.1 * r, "epsilon_ceiling": 5.0} for r in (3, 2)]
    assert proved.merged(claimed, bounds) == [
        {"round": 1, "epsilon_claimed": 1.0},
        {"round": 2, "epsilon_claimed": None, "epsilon_lower_bound": 0.2, "epsilon_ceiling": 5.0},
        {
            "round": 3,
            "epsilon_claimed": 2.0,
            "epsilon_lower_bound": pytest.approx(0.3),
            "epsilon_ceiling": 5.0,
        },
    ]
    assert claimed[1] == {"round": 3, "epsilon_claimed": 2.0}
    assert proved.merged([], []) == []


def test_why_nothing_is_claimed_is_told():
    claim = {"holds_against": ["aggregate"]}
    assert proved.unclaimed([], "server") == "no ε is claimed"
    assert proved.unclaimed([claim], "server") == "no claim covers vantage 'server'"
    said = "no ε of replacing one record is claimed against vantage 'aggregate'"
    assert proved.unclaimed([claim], "aggregate") == said
