"""Run every attack on a transcript and measure it; the only place where scores meet membership."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import tensor

from fedmia import adaptive, audit, curves, measuring, proved
from fedmia.asking import Asking, adversary_of
from fedmia.knowledge import View
from fedmia.records import Examples
from fedmia.seeding import generator
from fedmia.signals.forward import evaluate as forward
from fedmia.stage import Stage
from fedmia.targets import Targets, targets, targets_among

__all__ = ["Measured", "OnAttack", "Targets", "evaluate", "targets", "targets_among"]

OnAttack = Callable[[int, int, str], None]
"""Called before each attack with how many are done, how many there are, and its name; and while
shadow models are trained, with rounds instead of attacks."""

_CHUNK = 256


@dataclass
class Measured:
    """One row of the result for each attack and baseline, and the attacks' raw scores.

    ``bounds`` are those of :class:`fedmia.curves.Curves`; ``notes`` say what became of attackers
    that know the defences, where they were asked for.
    """

    attacks: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    scores: dict[str, NDArray[np.float64]]
    seconds: float
    shadow_seconds: float = 0.0
    bounds: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def evaluate(
    stage: Stage,
    view: View,
    who: Targets,
    failure: str | None,
    on_attack: OnAttack = lambda done, total, name: None,
    delta: float = 0.0,
) -> Measured:
    """Attack and measure.

    A vantage that lacks what an attack needs gives a ``not_applicable`` row. Where training
    failed, what the vantage shows is not what was asked for, and every attack is marked failed.
    ``delta`` is that of the claim which the bounds are held against, 0 without one. With
    ``attack.adaptive`` an attack has a second row where knowing the defences changes its scores.
    """
    start = time.perf_counter()

    def on_shadows(done: int, total: int) -> None:
        on_attack(done, total, "training shadows")

    adversaries = [adversary_of(stage, view, who, on_shadows)]
    knows = adaptive.informed(stage) if adaptive.wanted(stage) else None
    if knows:
        adversaries.append(adversary_of(stage, view, who, on_shadows, knows))
    ask = Asking(stage, view, who, failure)
    for done, (name, attack) in enumerate(stage.attacks.items()):
        on_attack(done, len(stage.attacks), name)
        scores = ask(name, attack, adversaries[0])
        if knows and scores is not None and knows.concerns(attack):
            ask.again(name, attack, adversaries[1], scores)
    measured = Measured(ask.rows, [], ask.scores, 0.0)
    if adaptive.wanted(stage):
        added = sum(row.get("adaptive", False) for row in ask.rows)
        measured.notes = adaptive.notes(stage, knows, added)
    _follow(ask, measured, delta)
    for name, scores in _blind(stage, who, ask.examples).items():
        began = time.perf_counter()
        row: dict[str, Any] = {"name": name, "vantage": "blind"}
        row |= measuring.measured(stage, scores, who.owner, who.clients)
        row |= {"auc_per_round": None, "seconds": time.perf_counter() - began}
        measured.baselines.append(row)
    measured.seconds = time.perf_counter() - start
    measured.shadow_seconds = sum(one.shadow_seconds for one in adversaries)
    return measured


def _follow(ask: Asking, measured: Measured, delta: float) -> None:
    """Add to the rows, and to the bounds, what there would have been after earlier rounds."""
    who = ask.who
    prove = partial(proved.epsilon, ask.stage, owner=who.owner, delta=delta, host=who.host)
    found = curves.follow(
        ask.view,
        ask.asked,
        {name: asked.left_out for name, asked in ask.asked.items()},
        ask.of,
        lambda rows: who.without(rows).owner,
        prove,
        measured.scores,
    )
    measured.bounds = found.bounds
    for row in measured.attacks:
        if (name := row["name"]) in found.auc:
            row["auc_per_round"] = found.auc[name]
        if name in found.failed:
            row |= {"status": "failed", "reason": found.failed[name]}
            measured.scores.pop(name, None)


def _blind(stage: Stage, who: Targets, examples: Examples) -> dict[str, NDArray[np.float64]]:
    """Return the scores of baselines that never look at training."""
    rng, num_targets = generator(stage.seed, "baselines"), len(who.nodes)
    untrained, _ = forward(stage.model.eval(), tensor(examples.x), tensor(examples.y), _CHUNK)
    if who.host is None:
        prior = audit.label_prior(examples.y, who.owner, num_targets)
    else:
        prior = audit.label_prior_in_turn(examples.y, who.owner, num_targets, rng)
    return {
        "label_prior": prior,
        "raw_features": audit.raw_features(examples.x, examples.y, who.owner, num_targets, rng),
        "untrained_model": audit.untrained(untrained, num_targets),
    }
