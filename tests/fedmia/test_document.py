from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedmia.config import compose
from fedmia.document import delta_against, document, guards, promised
from fedmia.evaluation import Measured, Targets
from fedmia.preparation import prepare

SMALL = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "num_clients=4",
    "partition.samples_per_client=50",
    "candidates.nonmembers=200",
]
UTILITY = {"utility": {"test_accuracy": 0.9, "train_accuracy": 1.0, "per_round": []}}


@pytest.fixture(scope="module")
def stage():
    return prepare(compose(SMALL))


def made(stage, scores, blind=(0.4, 0.6), settled=None, bounds=()):
    owner = stage.candidates.owner
    who = Targets(tuple(range(4)), tuple(range(4)), owner, ())
    row = {"name": "label_prior", "status": "ok", "auc": 0.5, "auc_ci": list(blind)}
    measured = Measured([], [row], scores, 0.0, bounds=list(bounds))
    return document(stage, measured, who, settled or {})


def perfect(stage):
    return {"oracle": (stage.candidates.owner == np.arange(4)[:, None]).astype(float)}


def test_an_oracle_proves_the_ceiling_and_a_coin_next_to_nothing(stage):
    sure = made(stage, perfect(stage))["privacy"]
    coin = {"coin": np.random.default_rng(0).normal(size=(4, len(stage.candidates.owner)))}
    blind = made(stage, coin)["privacy"]

    assert sure["epsilon_lower_bound"] == sure["epsilon_ceiling"] > 3
    assert sure["epsilon_independent"] > 3
    assert blind["epsilon_lower_bound"] < 0.5
    assert blind["epsilon_ceiling"] == sure["epsilon_ceiling"]


def test_no_epsilon_where_a_baseline_tells_members_without_training(stage):
    found = made(stage, perfect(stage), blind=(0.55, 0.65))

    assert found["privacy"]["epsilon_lower_bound"] is None
    assert found["privacy"]["epsilon_independent"] is None
    assert "no ε is given: label_prior can tell members without training" in found["notes"]


def test_populations_are_counted_and_the_histograms_judged(stage):
    found = made(stage, {})["candidates"]

    assert (found["members"], found["nonmembers"]) == (200, len(stage.split.nonmembers))
    assert found["auxiliary"] == len(stage.auxiliary)
    assert found["source_blind"] == pytest.approx(0.25)


def test_a_held_out_candidate_that_somebody_trained_on_fails_a_guard(stage):
    def disjoint(stage):
        found = guards(stage, made(stage, {}) | UTILITY)
        return next(g["status"] for g in found if g["name"] == "disjoint")

    twin = stage.dataset.x.copy()
    outside = stage.candidates.index[stage.candidates.owner == -1][0]
    twin[outside] = twin[stage.split.shards[0][0]]

    assert disjoint(stage) == "pass"
    assert disjoint(replace(stage, dataset=replace(stage.dataset, x=twin))) == "fail"


def test_an_attack_that_picks_something_says_by_what(stage, monkeypatch):
    picky = SimpleNamespace(selects=lambda: "a layer, on shadow clients")
    stage = replace(stage, attacks={"picky": picky, "plain": SimpleNamespace(selects=lambda: "")})
    given = {}
    monkeypatch.setattr("fedmia.document.guard.check", lambda *rows, **facts: given.update(facts))

    guards(stage, made(stage, {}) | UTILITY)

    assert given["selects"] == {"picky": "a layer, on shadow clients"}


LOCAL = ["client/defenses=[local_dp]", "client.defenses.local_dp.epsilon=2"]


def test_what_is_promised_of_an_unfinished_run_counts_every_client_in_every_round():
    private = prepare(compose([*SMALL, *LOCAL, "num_rounds=20"]))
    after = {rounds: promised(private, None, rounds)["claims"][0] for rounds in (5, 20)}

    assert after[20]["epsilon"] == pytest.approx(2, abs=2e-3)
    assert after[5]["epsilon"] < 1.2
    assert (after[5]["rounds"], after[20]["rounds"]) == (5, 20)
    assert delta_against(private, {"claims": [after[20]]}) == 1e-5
    other = after[20] | {"epsilon": 1.0, "epsilon_replace_one": 3.0, "delta": 1e-3}
    assert delta_against(private, {"claims": [after[20], other]}) == 1e-5


def test_what_weakens_a_claim_is_a_note_once():
    weak = prepare(compose([*SMALL, *LOCAL, "client.defenses.local_dp.delta=0.3"]))
    (line,) = [n for n in made(weak, {})["notes"] if "delta" in n]
    assert line == "client.defenses.local_dp.delta=0.3 is not below 1/clients=0.25"


def test_a_bound_beyond_the_claim_raises_the_alarm_and_fails_the_guard():
    private = prepare(compose([*SMALL, *LOCAL]))
    settled = {"claims": promised(private, None, 30)["claims"]}
    curve = [{"round": 30, "epsilon_lower_bound": 1.5, "epsilon_ceiling": 3.0}]

    broken = made(private, perfect(private), settled=settled, bounds=curve)

    privacy = broken["privacy"]
    assert (
        privacy["epsilon_lower_bound"]
        > privacy["epsilon_comparable"]
        == privacy["epsilon_claimed"]
        == pytest.approx(2, abs=2e-3)
    )
    assert "attacks prove ε ≥" in privacy["alarm"]
    assert privacy["alarm"] in broken["notes"]
    last = privacy["per_round"][-1]
    assert (last["round"], last["epsilon_lower_bound"]) == (30, 1.5)
    assert last["epsilon_claimed"] == privacy["epsilon_claimed"]
    found = guards(private, broken | UTILITY)
    assert "fail" in {g["status"] for g in found if "ε" in g["detail"]}
