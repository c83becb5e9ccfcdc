"""What attacking clients do to each aggregation rule: test accuracy of rule × attack, as markdown.

The default task with 15 clients of whom 3 attack, the most that every rule can serve (Bulyan
asks for 4f + 3 clients). Colluders know the updates of all honest clients. A cell is the
mean over the seeds, and the lowest of them; a run whose model is no number any more counts with
the accuracy before it was.

    python benchmarks/byzantine.py [--seeds 0 1 2] [--rules krum rfa] [--attacks alie] [--rounds 30]

Rules that learn first what is usual (FLDetector for 12 rounds, anomaly for 5) are asked apart, with
attackers who wait: ``--rules fldetector anomaly --from-round 14``.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fedmia.config import compose
from fedmia.preparation import prepare
from fedmia.recording import Training, train
from fedmia.runlog import quiet

CLIENTS, ATTACKERS = 15, 3
RULES = {
    "fedavg": [],
    "fedmedian": [],
    "fedtrimmedavg": [f"strategy.beta={ATTACKERS / CLIENTS}"],
    "krum": [f"strategy.byzantine={ATTACKERS}"],
    "multi-krum": [f"strategy.byzantine={ATTACKERS}", "strategy.selected=null"],
    "bulyan": [f"strategy.byzantine={ATTACKERS}"],
    "rfa": [],
    "centered_clipping": [],
    "angular_trimmed_mean": [f"strategy.byzantine={ATTACKERS}"],
    "foolsgold": [],
    "fltrust": [],
    "flame": [],
    "fldetector": [],
    "reputation": [],
    "anomaly": [],
}
STRATEGY = {"multi-krum": "krum"}
ATTACKS = {
    "none": [],
    "sign_flip": [],
    "gaussian_noise": [],
    "scaling": [],
    "label_flip": [],
    "scaling,label_flip": [],
    "alie": ["client.attackers.alie.knowledge=all"],
    "alie:z=5": ["client.attackers.alie.knowledge=all", "client.attackers.alie.z=5"],
    "min_max": ["client.attackers.min_max.knowledge=all"],
}


def overrides(rule: str, attack: str, seed: int, rounds: int, first: int = 1) -> list[str]:
    """Return what makes the default experiment one cell of the matrix."""
    names = [] if attack == "none" else attack.partition(":")[0].split(",")
    who = [f"client.attackers.{name}.fraction={ATTACKERS / CLIENTS}" for name in names]
    who += [f"client.attackers.{name}.from_round={first}" for name in names]
    return [
        f"strategy={STRATEGY.get(rule, rule)}",
        f"client/attackers=[{','.join(names)}]",
        *RULES[rule],
        *ATTACKS[attack],
        *who,
        f"seed={seed}",
        f"num_clients={CLIENTS}",
        f"num_rounds={rounds}",
        "pool=serial",
        "observer.vantage=final_model",
        "attack=yeom_loss",
    ]


def trained(settings: Sequence[str]) -> Training:
    """Train once; nothing is attacked for membership and nothing is kept."""
    stage = prepare(compose(settings))
    with tempfile.TemporaryDirectory() as folder:
        return stage.pool.run(
            stage.federation(),
            stage.config.num_clients,
            stage.seed,
            lambda grid: train(stage, grid, Path(folder), lambda number, accuracy: None),
        )


def cell(rule: str, attack: str, seeds: Sequence[int], rounds: int, first: int) -> str:
    """Return mean and lowest test accuracy over the seeds, and in how many training broke off."""
    runs = [trained(overrides(rule, attack, seed, rounds, first)) for seed in seeds]
    found = [100 * run.test_accuracy[-1][1] for run in runs]
    broken = sum(run.failure is not None for run in runs)
    lowest = f" ({min(found):.0f})" if len(found) > 1 else ""
    return f"{sum(found) / len(found):.1f}{lowest}{'*' * bool(broken)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--from-round", type=int, default=1, help="the first that is attacked")
    arguments = parser.parse_args()
    quiet()
    how = arguments.seeds, arguments.rounds, arguments.from_round
    start = time.perf_counter()
    print(f"| rule | {' | '.join(arguments.attacks)} |")
    print(f"|---|{'---:|' * len(arguments.attacks)}", flush=True)
    for rule in arguments.rules:
        print(f"| {rule} |", end="", flush=True)
        for attack in arguments.attacks:
            found = cell(rule, attack, *how)
            print(f" {found} |", end="", flush=True)
        print(flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s; * training broke off: the model was no number")


if __name__ == "__main__":
    main()
