"""Seconds of every attack that trains no shadow model: `python benchmarks/attacks.py [run_dir]`.

All targets of a default transcript, that of ``run_dir`` or one recorded here, one torch thread.
Signals are computed first and printed apart; attacks that are trained are trained anew. Wall and
processor seconds and the AUC of every row, and their sum. Then what one more attack costs that
reads signals which are there already: its score for all targets, and metrics with all intervals.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedmia import adversary, config, evaluation, experiment
from fedmia.attacks.base import NotApplicableError
from fedmia.knowledge import View
from fedmia.metrics import auc
from fedmia.pairs import pair
from fedmia.preparation import prepare
from fedmia.signals import Signals
from fedmia.stage import Stage
from fedmia.training import torch_threads
from fedmia.transcript import Transcript
from fedmia.truth import Truth

OVERRIDES = ("attack=all", "knowledge.recipe=false")
REPEATS = 10


def seconds(function: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - processor, result


class Trial:
    """The transcript of a run seen for the first time, but for signals kept on disk."""

    def __init__(self, stage: Stage, run_dir: Path) -> None:
        self.stage = stage
        self.examples = stage.dataset.examples(stage.candidates.index)
        transcript, truth = Transcript(run_dir / "transcript"), Truth.load(run_dir)
        kept = transcript.path / "signals"
        self.view = View(transcript, Signals(transcript, stage.model, self.examples, kept))
        self.who = evaluation.targets(stage, self.view, truth.nodes)
        self.knows = adversary.knowledge(stage, self.view, self.who.known)

    def scores(self, name: str) -> Any:
        """Return a row's scores of all targets, (targets, n)."""
        pairs = zip(self.who.nodes, self.knows, strict=True)
        attack = self.stage.attacks[name]
        return np.stack([attack(self.view, node, self.examples, knows) for node, knows in pairs])


def applicable(trial: Trial) -> list[str]:
    """Return the rows that run, their signals computed; print what signals cost."""
    names = []
    for name in trial.stage.attacks:
        try:
            trial.scores(name)
        except NotApplicableError:
            continue
        names.append(name)
    print(f"{trial.view.signals.seconds:8.2f} s          signals of candidates and others")
    return names


def one_more(trial: Trial, name: str) -> None:
    """Print the fastest of several times, in milliseconds, that a cheap attack adds to a run."""
    who, metrics, labels = trial.who, trial.stage.metrics, trial.examples.y
    scores = trial.scores(name)
    measure = {
        "score": lambda: trial.scores(name),
        "metrics": lambda: metrics.evaluate(scores, who.owner, labels, np.random.default_rng(0)),
    }
    for part, function in measure.items():
        runs = np.array([seconds(function)[:2] for _ in range(REPEATS)]) * 1e3
        wall, processor = runs.min(axis=0)
        print(f"{wall:8.1f} ms wall {processor:8.1f} ms processor   {name}, {part}")


def main(run_dir: Path) -> None:
    settings = config.amend(config.load(run_dir / ".hydra" / "config.yaml"), OVERRIDES)
    with torch_threads(settings.num_threads):
        stage = prepare(settings)
        names = applicable(Trial(stage, run_dir))
        trial, sums = Trial(stage, run_dir), np.zeros(2)
        for name in names:
            before = trial.view.signals.seconds
            wall, processor, scores = seconds(lambda name=name: trial.scores(name))
            reading = trial.view.signals.seconds - before
            sums += (wall - reading, processor - reading)
            found = pair(scores, trial.who.owner)
            print(
                f"{wall - reading:8.3f} s wall {processor - reading:8.3f} s processor   "
                f"AUC {auc(found.scores, found.members):.3f}   {name}"
            )
        print(f"{sums[0]:8.3f} s wall {sums[1]:8.3f} s processor   all {len(names)}")
        for name in ("yeom_loss", "loss_series", "fedmia"):
            if name in names:
                one_more(trial, name)


def record(run_dir: Path) -> None:
    """Run the default experiment, in this process, with attacks that cost nothing."""
    overrides = ["pool=serial", "attack=yeom_loss"]
    settings = config.compose(overrides)
    experiment.run(settings, run_dir)
    config.save(settings, run_dir / ".hydra", overrides)


if __name__ == "__main__":
    logging.getLogger("flwr").setLevel(logging.ERROR)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            record(Path(folder))
            main(Path(folder))
