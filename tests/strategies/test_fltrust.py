"""FLTrust against hand-worked trust, and colluders that outnumber honest clients."""

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.records import Examples
from fedmia.root import Root
from fedmia.training import LocalSGD
from strategies.fltrust import FLTrust
from tests.strategies.central_rounds import fed_avg
from tests.strategies.rounds_of import updates_of


class Stub:
    """A root whose own update is given."""

    def __init__(self, own):
        self.own, self.asked = np.asarray(own, np.float32), []

    def at(self, vector):
        return {"w": vector}

    def flat(self, params):
        return params["w"]

    def update(self, params, server_round):
        self.asked.append((params["w"].tolist(), server_round))
        return {"w": self.own}


def rule(own):
    made = FLTrust(fed_avg())
    made.equip(Stub(own))
    return made


def test_trust_and_norms_by_hand():
    # ‖u_0‖ = 2; cosines 1, 0.6, -1; all of norm 2: (1·(2, 0) + 0.6·(1.2, 1.6)) / 1.6.
    made = rule([2.0, 0.0])
    found = made.combine(updates_of([[10.0, 0.0], [3.0, 4.0], [-1.0, 0.0]], 7, model=[0.5, 0.25]))
    np.testing.assert_allclose(found, [(2 + 0.72) / 1.6, 0.96 / 1.6], rtol=1e-6)
    assert made._root.asked == [([0.5, 0.25], 7)]
    (flag,) = made.flags
    assert (flag.node_id, flag.round, flag.isolated) == (12, 7, True)
    assert flag.evidence == {"cosine with the server's update": -1.0}


def test_most_clients_may_collude():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(10, 200)) + 1.0
    rows[:8] = -100.0
    found = rule(np.ones(200)).combine(updates_of(rows))
    assert found @ np.ones(200) > 0.9 * np.linalg.norm(found) * np.sqrt(200) * 0.7
    assert np.linalg.norm(found) <= np.sqrt(200) + 1e-3, "at most the server's norm"


@pytest.mark.parametrize(
    ("own", "rows"),
    [([1.0, 0.0], [[-1.0, 0.0], [-2.0, 1.0]]), ([0.0, 0.0], [[1.0, 0.0]]), ([1.0, 0], [[0.0, 0]])],
)
def test_nobody_to_trust_gives_nothing(own, rows):
    assert rule(own).combine(updates_of(rows)) is None


def test_a_root_learns_the_way_that_clients_with_its_records_do():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    torch.manual_seed(0)
    root = Root(nn.Linear(3, 2), LocalSGD(), Examples(x, (x[:, 0] > 0).astype(np.int64)), 0)
    made = FLTrust(fed_avg(), root_samples=40)
    made.equip(root)
    model = root.flat(root.at(np.zeros(8)))
    own = root.flat(root.update(root.at(model), 1))
    found = made.combine(updates_of(np.stack([3 * own, -own]), model=model))
    np.testing.assert_allclose(found, own, rtol=1e-5)


def test_no_root_records_are_refused_and_none_given_is_an_error():
    said = "root_samples=0: expected at least 1: FLTrust compares clients with the server's own"
    with pytest.raises(ConfigError, match=said):
        FLTrust(fed_avg(), root_samples=0)
    with pytest.raises(RuntimeError, match="no root records"):
        FLTrust(fed_avg()).combine(updates_of([[1.0]]))
