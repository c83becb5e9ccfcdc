import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedmia.results import Result, validate

Change = Callable[..., Result]


def _attack(name: str, shift: float, seed: int) -> dict[str, Any]:
    """Return a made-up attack whose members score ``shift`` standard deviations higher."""
    rng = np.random.default_rng(seed)
    nonmembers = np.sort(rng.normal(size=900))[::-1]
    members = np.sort(rng.normal(loc=shift, size=200))[::-1]
    thresholds = np.append(nonmembers, -np.inf)
    auc = float(np.mean(members[:, None] > nonmembers[None]))
    edges = np.linspace(-4, 4 + shift, 41)
    counts = [np.histogram(s, edges)[0].tolist() for s in (members, nonmembers, nonmembers + 0.1)]
    return {
        "name": name,
        "vantage": "server",
        "status": "ok",
        "auc": auc,
        "auc_ci": [max(0.0, auc - 0.03), min(1.0, auc + 0.03)],
        "tpr_at_fpr": {"0.1": 0.412, "0.01": 0.123, "0.001": None},
        "tpr_ci": {"0.1": [0.37, 0.46], "0.01": [0.081, 0.164], "0.001": None},
        "balanced_accuracy": 0.701,
        "advantage": 0.402,
        "auc_label_matched": auc - 0.01,
        "other_members": {"auc": 0.611, "auc_ci": [0.58, 0.64], "tpr_at_fpr": {"0.01": 0.02}},
        "per_target": [
            {
                "client": client,
                "auc": 0.7 + client / 100,
                "auc_ci": [0.6 + client / 100, 0.8 + client / 100],
                "tpr_at_fpr": {"0.1": 0.3, "0.01": None},
            }
            for client in range(10)
        ],
        "auc_target_mean": 0.745,
        "auc_per_round": [
            {"round": r, "auc": 0.5 + (auc - 0.5) * (1 - 0.9**r)} for r in range(1, 31)
        ],
        "roc": {
            "fpr": [float(np.mean(nonmembers > t)) for t in thresholds],
            "tpr": [float(np.mean(members > t)) for t in thresholds],
        },
        "histogram": {
            "edges": edges.tolist(),
            "members": counts[0],
            "nonmembers": counts[1],
            "other_members": counts[2],
        },
        "seconds": 0.42,
    }


def _baseline(name: str) -> dict[str, Any]:
    return _attack(name, 0.0, 9) | {
        "vantage": "blind",
        "auc": 0.507,
        "auc_ci": [0.481, 0.533],
        "auc_per_round": None,
        "other_members": None,
    }


@functools.cache
def _document() -> dict[str, Any]:
    return {
        "schema": 1,
        "key": "0123456789abcdef",
        "config": {
            "seed": 3,
            "num_clients": 10,
            "num_rounds": 30,
            "dataset": {"_target_": "fedmia.datasets.digits.Digits", "label_noise": 0.2},
            "partition": {"_target_": "fedmia.partition.Stratified", "samples_per_client": 20},
            "model": {"_target_": "fedmia.models.mlp.Mlp", "hidden": [256, 256]},
            "strategy": {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_train": 1.0},
            "train": {"lr": 0.1, "local_epochs": 1},
            "output_dir": "runs/one",
            "pool": {"_target_": "fedmia.grid.ray.RayPool"},
        },
        "versions": {"fedmia": "0.1.0", "flwr": "1.41.0"},
        "seed": 3,
        "created": "2026-01-02T03:04:05Z",
        "status": "ok",
        "reason": None,
        "utility": {
            "test_accuracy": 0.712,
            "train_accuracy": 0.934,
            "per_round": [
                {"round": r, "test_accuracy": 0.1 + 0.612 * (1 - 0.85**r)} for r in range(1, 31)
            ],
        },
        "candidates": {
            "members": 200,
            "nonmembers": 900,
            "other_members": 1800,
            "auxiliary": 64,
            "null_run": False,
            "sha256": "a1" * 32,
            "split_sha256": "b2" * 32,
        },
        "attacks": [
            _attack("yeom_loss", 0.6, 1),
            _attack("loss_series", 1.5, 2),
            _attack("avg_cosine", 1.0, 3),
            {
                "name": "fedmia",
                "vantage": "server",
                "status": "not_applicable",
                "reason": "needs client updates, secagg shows only their sum",
            },
            {
                "name": "broken",
                "vantage": "server",
                "status": "failed",
                "reason": "NaN in the update of client 3 in round 7",
            },
        ],
        "baselines": [_baseline(n) for n in ("label_prior", "raw_features", "untrained_model")],
        "privacy": {
            "epsilon_claimed": None,
            "delta": 1e-5,
            "epsilon_lower_bound": 0.913,
            "epsilon_ceiling": 4.17,
            "confidence": 0.95,
        },
        "faults": [{"round": 7, "client": 3, "reason": "NaN in the update"}],
        "notes": ["20% of all labels were re-drawn uniformly"],
        "timing": {
            "setup_s": 3.1,
            "train_s": 1.25,
            "signals_s": 0.6,
            "attacks_s": 0.3,
            "per_round_s": None,
        },
    }


@pytest.fixture(scope="session")
def changed() -> Change:
    """Return a maker of valid results: ``changed({"seed": 4, "utility.test_accuracy": 0.5})``.

    Steps of a path that are digits index lists.
    """

    def change(changes: dict[str, Any] | None = None) -> Result:
        document: Any = copy.deepcopy(_document())
        for path, value in (changes or {}).items():
            *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
            place = document
            for step in way:
                place = place[step]
            place[last] = copy.deepcopy(value)
        return validate(document, "made up")

    return change


@pytest.fixture(scope="session")
def result(changed: Change) -> Result:
    return changed()


@pytest.fixture(scope="session")
def claim() -> Callable[..., dict[str, Any]]:
    """Return a maker of a claim, of central noise unless it is changed."""

    def make(epsilon: float | None = 8.0, **fields: Any) -> dict[str, Any]:
        rounds = [10, 20, 30]
        return {
            "part": "strategy",
            "unit": "client",
            "neighbours": "add_remove",
            "epsilon": epsilon,
            "epsilon_rdp": None if epsilon is None else epsilon + 0.5,
            "epsilon_replace_one": None if epsilon is None else 2 * epsilon + 1,
            "delta": 1e-5,
            "method": "PLD",
            "rounds": 30,
            "holds_against": ["aggregate", "participant", "final_model"],
            "noise": "seeded",
            "reasons": ["the server is trusted to add noise"],
            "per_round": [
                {"round": r, "epsilon_claimed": epsilon and epsilon * r / 30} for r in rounds
            ],
        } | fields

    return make


@pytest.fixture(scope="session")
def private(changed: Change, claim: Callable[..., dict[str, Any]]) -> Change:
    """Return a maker of runs with one claim: ``private(ε, {"seed": 4}, covered=False)``.

    The claim covers vantage ``aggregate``; not ``covered``, the adversary stands at ``server``.
    """

    def make(
        epsilon: float | None, changes: dict[str, Any] | None = None, *, covered: bool = True
    ) -> Result:
        one = claim(epsilon)
        vantage = "aggregate" if covered else "server"
        bounds = {"epsilon_lower_bound": 0.5, "epsilon_ceiling": 4.17}
        settled = {
            "privacy.claims": [one],
            "privacy.epsilon_claimed": epsilon if covered else None,
            "privacy.epsilon_comparable": one["epsilon_replace_one"] if covered else None,
            "privacy.per_round": [
                entry | bounds | ({} if covered else {"epsilon_claimed": None})
                for entry in one["per_round"]
            ],
            "config.observer": {"vantage": vantage},
            "config.strategy": {"_target_": "strategies.dp.DpCentral", "epsilon": epsilon},
            **{f"attacks.{i}.vantage": vantage for i in range(5)},
        }
        return changed(settled | (changes or {}))

    return make
