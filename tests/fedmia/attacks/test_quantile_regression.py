"""Quantile regression: levels that hold on strangers, scales that follow the record."""

from types import SimpleNamespace

import numpy as np
import pytest
from reference_world import SHOWN, World

from fedmia.attacks import quantile_regression as module
from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.quantile_regression import QuantileRegression
from fedmia.errors import ConfigError
from fedmia.records import Examples
from fedmia.vantages import Server

FINAL = SimpleNamespace(vantage="final_model", shows=SHOWN, hides_updates="")


class Noisy:
    """φ of non-members is N(x₀, (1 + 3·[x₁ > 0])²), the class adds its number times 2."""

    nodes = ()

    def __init__(self, records):
        self.candidates = records
        rng = np.random.default_rng(np.abs(records.x[:, 2] * 1e6).astype(np.int64).sum())
        self.logit_gap_global = (mean(records) + width(records) * rng.normal(size=len(records)))[
            None
        ]

    def of(self, records):
        return Noisy(records)


def mean(records):
    return records.x[:, 0] + 2.0 * records.y


def width(records):
    return 1 + 3 * (records.x[:, 1] > 0)


def strangers(n, seed):
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(0, 2, (n, 3)).astype(np.float32), rng.integers(0, 3, n))


def ask(attack, auxiliary, candidates):
    view = View(FINAL, Noisy(candidates))
    return attack(view, None, candidates, Knowledge(auxiliary, 3))


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_about_as_many_strangers_exceed_the_quantile_as_it_says(level):
    scores = ask(QuantileRegression("quantile", level), strangers(1500, 0), strangers(1500, 1))

    assert np.mean(scores > 0) == pytest.approx(1 - level, abs=0.05)


def test_strangers_are_standardised_wherever_they_lie():
    candidates = strangers(1500, 1)
    scores = ask(QuantileRegression(), strangers(1500, 0), candidates)

    for chosen in (candidates.x[:, 1] > 0, candidates.x[:, 1] <= 0, candidates.y == 2):
        assert scores[chosen].mean() == pytest.approx(0, abs=0.2)
        assert scores[chosen].std() == pytest.approx(1, abs=0.25)


def test_the_scale_is_the_records_own():
    """The same excess says less where scores scatter more."""
    candidates = strangers(600, 1)
    view = View(FINAL, Noisy(candidates))
    knowledge = Knowledge(strangers(1500, 0), 3)
    before = QuantileRegression()(view, None, candidates, knowledge)
    view.signals.logit_gap_global = view.signals.logit_gap_global + 2

    gained = QuantileRegression()(view, None, candidates, knowledge) - before

    wide = width(candidates) > 1
    assert np.median(gained[wide]) == pytest.approx(2 / 4, rel=0.3)
    assert np.median(gained[~wide]) == pytest.approx(2 / 1, rel=0.3)


def test_many_features_are_reduced():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(60, 60)))[0][:3].astype(np.float32)
    auxiliary, candidates = strangers(600, 0), strangers(600, 1)

    class Turned(Noisy):
        def __init__(self, records):
            super().__init__(Examples((records.x @ turn.T).astype(np.float32), records.y))
            self.candidates = records

        def of(self, records):
            return Turned(records)

    wide = [Examples(r.x @ turn, r.y) for r in (auxiliary, candidates)]
    view = View(FINAL, Turned(wide[1]))
    scores = QuantileRegression(components=3)(view, None, wide[1], Knowledge(wide[0], 3))

    assert scores.std() == pytest.approx(1, abs=0.35)
    assert abs(np.corrcoef(scores, mean(candidates))[0, 1]) < 0.25


def test_each_target_is_judged_by_its_own_last_update_in_one_regression(monkeypatch):
    """Client 2 scores as 0 does but for a scale, client 1 has not taken part."""
    fits, forest = [], module._forest
    monkeypatch.setattr(module, "_forest", lambda *given: fits.append(1) or forest(*given))
    auxiliary, candidates = strangers(300, 0), strangers(200, 1)

    class Local(Noisy):
        nodes = (7, 8, 9)
        present = np.array([[True, False, False], [True, False, True], [False, False, True]])

        def __init__(self, records):
            super().__init__(records)
            phi = self.logit_gap_global[0]
            self.logit_gap_local = np.full((3, 3, len(records)), np.nan)
            self.logit_gap_local[0, 0] = self.logit_gap_local[1, 2] = 0.0
            self.logit_gap_local[1, 0] = phi
            self.logit_gap_local[2, 2] = 5 + 3 * phi

        def of(self, records):
            self.other = getattr(self, "other", None) or Local(records)
            return self.other

    server = SimpleNamespace(vantage="server", shows=Server.shows, hides_updates="")
    view, knowledge = View(server, Local(candidates)), Knowledge(auxiliary, 3)
    attack = QuantileRegression(model="local")

    first, third = (attack(view, node, candidates, knowledge) for node in (7, 9))

    assert third == pytest.approx(first, abs=1e-6)
    assert len(fits) == 2  # μ and σ
    with pytest.raises(NotApplicableError, match="needs a round in which the target took part"):
        attack(view, 8, candidates, knowledge)


def test_it_takes_some_auxiliary_records():
    world = World()
    few = Knowledge(world.knowledge.auxiliary[:49], 3)

    with pytest.raises(NotApplicableError) as refusal:
        world.score(QuantileRegression(), knowledge=few)
    assert str(refusal.value) == "needs 50 auxiliary records, has 49"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"distribution": "uniform"}, "distribution=uniform: expected gaussian or quantile"),
        ({"level": 1.0}, "level=1.0: expected in (0, 1)"),
        ({"model": "other"}, "model=other: expected global or local"),
        ({"components": 0}, "components=0: expected at least 1"),
        ({"trees": 19}, "trees=19: expected at least 20"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, line):
    with pytest.raises(ConfigError) as refusal:
        QuantileRegression(**settings)
    assert str(refusal.value) == line
