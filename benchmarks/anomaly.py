"""How often anomaly detection finds clients that attack, and how often it suspects honest ones.

Ten clients, twelve rounds, the first five clean; flags only, so that nothing depends on an earlier
verdict and all detectors judge the same updates. Two of the ten attack from round 6 on; without an
attack all are honest. A rate is of (client, round) pairs after the warm-up; ``ever`` of the clients
that were flagged at least once in these seven rounds. Means over the seeds.

    python benchmarks/anomaly.py [--seeds 0 1 2] [--rounds 12] [--attacks sign_flip scaling]
"""

import argparse
import logging
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from fedmia import attackers, config, experiment
from fedmia.recording import train
from fedmia.stack import wrapped

DETECTORS = ("robust_z", "autoencoder", "vae")
WARMUP = 5
DATA = {
    "iid": ["partition=iid", "partition.samples_per_client=20"],
    "dirichlet .5": ["partition=dirichlet", "partition.alpha=0.5"],
    "dirichlet .1": ["partition=dirichlet", "partition.alpha=0.1"],
    "shards": ["partition=shards"],
}


def nested() -> list[str]:
    """Return overrides by which each detector wraps the next, flags only."""
    found, key = ["strategy=anomaly"], "strategy"
    for number, detector in enumerate(DETECTORS):
        found += [f"strategy@{key}=anomaly"] if number else []
        found += [f"{key}.detector={detector}", f"{key}.warmup_rounds={WARMUP}"]
        found += [f"{key}.isolate=false"]
        key += ".inner"
    return [*found, "client/defenses=[anomaly]"]


def verdicts(data: list[str], attack: str | None, rounds: int, seed: int) -> dict[str, np.ndarray]:
    """Return by detector who was flagged in which round after the warm-up, and who attacks."""
    settings = [*nested(), *data, "pool=serial", "attack=yeom_loss", "metrics.bootstrap=100"]
    settings += [f"num_rounds={rounds}", f"seed={seed}"]
    if attack:
        settings += [f"client/attackers=[{attack}]"]
        settings += [f"client.attackers.{attack}.from_round={WARMUP + 1}"]
    stage = experiment.check(config.compose(settings))
    clients, strategies = stage.config.num_clients, []
    build = type(stage).strategy
    object.__setattr__(stage, "strategy", lambda: strategies.append(build(stage)) or strategies[-1])
    with tempfile.TemporaryDirectory() as folder:
        training = stage.pool.run(
            stage.federation(),
            clients,
            seed,
            lambda grid: train(stage, grid, Path(folder), lambda number, accuracy: None),
        )
    assert training.failure is None, training.failure
    found = {}
    for _, part in wrapped(strategies[-1]):
        if hasattr(part, "detector"):
            seen = found[part.detector] = np.zeros((rounds - WARMUP, clients), bool)
            for flag in part.flags:
                seen[flag.round - WARMUP - 1, training.nodes[flag.node_id]] = True
    found["attackers"] = np.zeros(clients, bool)
    found["attackers"][list(attackers.numbers(stage.attackers, clients))] = True
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--attacks", nargs="*", default=["sign_flip", "gaussian_noise", "scaling"])
    parser.add_argument("--data", nargs="+", default=[*DATA], choices=[*DATA])
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| data | attack | detector | detected | first round | honest flagged | ever |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name in asked.data:
        for attack in [None, *asked.attacks]:
            rows: dict[str, list[list[float]]] = defaultdict(list)
            for seed in asked.seeds:
                found = verdicts(DATA[name], attack, asked.rounds, seed)
                bad = found["attackers"]
                for detector in DETECTORS:
                    seen = found[detector]
                    ill, well = seen[:, bad], seen[:, ~bad]
                    caught = [ill.mean(), ill[0].mean()] if attack else [np.nan, np.nan]
                    rows[detector].append([*caught, well.mean(), well.any(axis=0).mean()])
            for detector, values in rows.items():
                shown = ["–" if np.isnan(v) else f"{v:.0%}" for v in np.mean(values, axis=0)]
                cells = [name, attack or "none", detector, *shown]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
