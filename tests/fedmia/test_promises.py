"""What parts promise is collected, counted by rounds or participations, and held against bounds."""

import pytest
from flwr.serverapp.strategy import FedAvg

from clients.defenses.anomaly import Anomaly as AnomalyMod
from clients.defenses.clipping import Clipping
from clients.defenses.dp_sgd import DpSgd
from clients.defenses.local_dp import LocalDp
from clients.defenses.secagg_plus import SecAggPlus as SecAggMod
from clients.defenses.sensitivity_clip import SensitivityClip
from fedmia import promises
from fedmia.secagg.noise import Noise
from fedmia.secagg.protocol import Protocol
from fedmia.stack import Stack
from strategies.anomaly import Anomaly
from strategies.dp_central import DpCentral
from strategies.secagg_plus import SecAggPlus

RECORDS = (20,) * 10


def central(**settings):
    inner = FedAvg(fraction_evaluate=0.0)
    return DpCentral(inner, 1.0, 30, 10, **{"epsilon": 8.0} | settings)


def collected(strategy, mods=None, **fields):
    return promises.collect(Stack(strategy, mods or {}, RECORDS, **fields), RECORDS, 30)


def warned(strategy, mods=None):
    return promises.warnings(Stack(strategy, mods or {}, RECORDS), RECORDS, 30)


def test_nothing_is_promised_without_noise():
    assert collected(FedAvg(fraction_evaluate=0.0), {"clipping": Clipping()}) == []


def test_claims_come_with_the_key_of_their_part():
    protocol = Protocol(cohort=10, max_weight=1)
    strategy = SecAggPlus(central(clip_by="clients"), protocol)
    mods = {"secagg_plus": SecAggMod(protocol), "local_dp": LocalDp(), "clipping": Clipping()}
    found = collected(strategy, mods)
    assert [part for part, _ in found] == ["strategy.inner", "client.defenses.local_dp"]
    hidden = " ".join(found[0][1].reasons)
    assert "secagg_plus" in hidden


def test_the_noise_under_masks_holds_against_the_server_too():
    noise = Noise(mechanism="skellam", noise_multiplier=8.0, min_survivors=5)
    protocol = Protocol(cohort=10, max_weight=1, noise=noise)
    strategy = SecAggPlus(FedAvg(fraction_evaluate=0.0), protocol)
    ((part, claim),) = collected(strategy, length=1000)
    assert part == "strategy"
    assert "server" in claim.holds_against
    assert claim.secure
    gaussian = central(noise_multiplier=8.0, epsilon=None).account
    assert gaussian.epsilon(30) < claim.account.epsilon(30) < 1.15 * gaussian.epsilon(30)


def test_releases_are_counted_by_rounds_and_participations_by_client():
    claims = collected(central(), {"local_dp": LocalDp(noise_multiplier=5.0, epsilon=None)})
    seen = {0: [1, 2, 5], 1: [2], 2: []}
    by_server, by_client = promises.spent(claims, 4, seen)

    account = dict(claims)["strategy"].account
    assert by_server["rounds"] == 4
    assert by_server["epsilon"] == account.epsilon(4)
    assert by_server["epsilon_replace_one"] > by_server["epsilon"]
    assert by_client["rounds"] == 3
    assert by_client["epsilon"] == by_client["epsilon_replace_one"]
    curve = {e["round"]: e["epsilon_claimed"] for e in by_client["per_round"]}
    local = dict(claims)["client.defenses.local_dp"].account
    assert curve == {r: local.epsilon(n) for r, n in zip(range(1, 6), (1, 2, 2, 2, 3), strict=True)}
    released = [e["epsilon_claimed"] for e in by_server["per_round"]]
    assert released[3] == released[4] == account.epsilon(4)


def test_without_noise_epsilon_is_infinite_and_says_so():
    (claim,) = promises.spent(collected(central(epsilon=float("inf"))), 30, {})
    assert claim["epsilon"] is None
    assert "ε is infinite" in claim["reasons"][-1]


def test_a_heuristic_threshold_leaves_no_epsilon():
    mods = {"sensitivity_clip": SensitivityClip(form="heuristic")}
    found = promises.spent(collected(central(clip_by="clients"), mods), 30, {0: [1]})
    assert found
    assert all(claim["epsilon"] is None and claim["delta"] is None for claim in found)


def test_released_thresholds_stand_in_for_the_strategys_claim():
    settings = {"noise_multiplier": 10.0, "epsilon": None, "neighbours": "replace_one"}
    mods = {"sensitivity_clip": SensitivityClip()}
    strategy = central(clip_by="clients", delta=1e-3, **settings)
    ((part, claim),) = collected(strategy, mods)
    assert part == "client.defenses.sensitivity_clip"
    assert strategy.account.epsilon(30) < claim.account.epsilon(30)
    assert claim.account.epsilon(30) < 1.2 * strategy.account.epsilon(30)
    assert claim.account.delta == 1e-3


def test_leaving_clients_out_by_their_data_leaves_no_epsilon_and_flags_alone_do():
    setting = {0: [1]}
    (kept,) = promises.spent(collected(Anomaly(central(), 30, isolate=False)), 30, setting)
    (alone,) = promises.spent(collected(central()), 30, setting)
    assert kept["part"] == "strategy.inner"
    assert kept["epsilon"] == alone["epsilon"] == pytest.approx(8.0, rel=0.01)
    (void,) = promises.spent(collected(Anomaly(central(), 30)), 30, setting)
    assert void["epsilon"] is None
    assert "no ε: which clients are left out depends on all updates" in void["reasons"][0]


def test_a_detector_that_clients_are_sent_leaves_no_epsilon():
    mods = {"anomaly": AnomalyMod()}
    strategy = Anomaly(central(), 30, "vae", isolate=False)
    (void,) = promises.spent(collected(strategy, mods), 30, {0: [1]})
    assert void["epsilon"] is None
    assert "learned from updates without noise" in void["reasons"][0]


def test_noise_in_the_update_outlasts_what_the_server_leaves_out():
    mods = {"local_dp": LocalDp()}
    ((_, claim),) = collected(Anomaly(FedAvg(fraction_evaluate=0.0), 30), mods)
    assert claim.account is not None


def test_leaving_clients_out_voids_a_claim_that_stands_in_for_the_strategys():
    settings = {"noise_multiplier": 10.0, "epsilon": None, "neighbours": "replace_one"}
    strategy = Anomaly(central(clip_by="clients", **settings), 30)
    ((part, claim),) = collected(strategy, {"sensitivity_clip": SensitivityClip()})
    assert (part, claim.account) == ("client.defenses.sensitivity_clip", None)


def row(part, epsilon, holds_against, unit="client", replaced=None, delta=1e-5):
    return {
        "part": part,
        "unit": unit,
        "epsilon": epsilon,
        "epsilon_replace_one": replaced,
        "delta": delta,
        "holds_against": holds_against,
        "per_round": [],
    }


def test_the_smallest_epsilon_that_holds_against_a_vantage_is_the_claim():
    claims = [
        row("a", 8.0, ["aggregate"]),
        row("b", 2.0, ["server", "aggregate"], replaced=4.0),
        row("c", None, ["server", "final_model"]),
    ]
    assert promises.covering(claims, "server")["part"] == "b"
    assert promises.covering(claims, "aggregate")["part"] == "b"
    assert promises.covering(claims, "final_model")["part"] == "c"
    assert promises.covering(claims, "participant") is None
    found = promises.against(claims, "server")
    assert (found["epsilon_claimed"], found["epsilon_comparable"], found["delta"]) == (2, 4, 1e-5)
    assert promises.against(claims, "participant")["epsilon_claimed"] is None


def test_bounds_about_one_record_are_held_against_the_smallest_epsilon_of_replacing_one():
    claims = [
        row("a", 2.0, ["aggregate"], replaced=5.0),
        row("b", 3.0, ["aggregate"], replaced=3.0, delta=1e-3),
        row("c", 1.0, ["final_model"], replaced=1.0),
        row("d", 1.0, ["aggregate"]),
    ]
    found = promises.against(claims, "aggregate")
    assert (found["epsilon_claimed"], found["delta"]) == (1.0, 1e-5)
    assert found["epsilon_comparable"] == 3.0
    assert promises.comparable(claims, "aggregate")["delta"] == 1e-3
    assert promises.alarm({**found, "epsilon_lower_bound": 4.0})
    assert promises.alarm({**found, "epsilon_lower_bound": 2.5}) is None
    assert promises.comparable([claims[3]], "aggregate") is None


@pytest.mark.parametrize(
    ("bound", "comparable", "rings"), [(4.1, 4.0, True), (3.9, 4.0, False), (None, 4.0, False)]
)
def test_the_alarm_rings_where_a_bound_exceeds_what_is_claimed_of_one_record(
    bound, comparable, rings
):
    said = promises.alarm({"epsilon_lower_bound": bound, "epsilon_comparable": comparable})
    assert (said is not None) == rings


def test_canary_clients_are_held_against_claims_about_clients():
    clients = [row("a", 2.0, ["aggregate"])]
    records = [row("a", 2.0, ["aggregate"], unit="record")]
    canaries = {"epsilon_lower_bound": 2.5}
    rings = promises.alarm({"claims": clients, "canary_clients": canaries})
    assert "canary clients prove ε ≥ 2.50" in rings
    assert promises.alarm({"claims": records, "canary_clients": canaries}) is None
    assert promises.alarm({"claims": clients, "canary_clients": {"epsilon_lower_bound": 1}}) is None


def test_warnings_name_the_part():
    assert warned(central(delta=0.2)) == ["strategy.delta=0.2 is not below 1/clients=0.1"]
    assert warned(central(delta=0.09)) == []
    mods = {"local_dp": LocalDp(delta=0.1), "dp_sgd": DpSgd(noise_multiplier=1.0, delta=0.05)}
    assert warned(FedAvg(fraction_evaluate=0.0), mods) == [
        "client.defenses.local_dp.delta=0.1 is not below 1/clients=0.1",
        "client.defenses.dp_sgd.delta=0.05 is not below 1/records=0.05",
    ]


def test_a_delta_under_the_mask_is_warned_of():
    noise = Noise(mechanism="skellam", noise_multiplier=8.0, min_survivors=5, delta=0.1)
    strategy = SecAggPlus(FedAvg(fraction_evaluate=0.0), Protocol(10, max_weight=1, noise=noise))
    (line,) = warned(strategy)
    assert line == "strategy.protocol.noise.delta=0.1 is not below 1/clients=0.1"
    ((_, claim),) = collected(strategy)
    (said,) = promises.spent([("strategy", claim)], 1, {})
    assert said["reasons"][-1] in line


def test_a_claim_that_another_stands_in_for_is_warned_of_all_the_same():
    settings = {"noise_multiplier": 10.0, "epsilon": None, "neighbours": "replace_one"}
    strategy = central(clip_by="clients", delta=0.2, **settings)
    assert len(warned(strategy, {"sensitivity_clip": SensitivityClip()})) == 1
