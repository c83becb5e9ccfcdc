"""What a configuration's candidates can show, told before anything is trained."""

from dataclasses import dataclass
from typing import Any

from fedmia import power
from fedmia.evaluation import targets_among
from fedmia.stage import Stage


@dataclass(frozen=True)
class Plan:
    """Counts of what attacks will be judged by, known records left out, and what they resolve.

    ``rows`` hold a :class:`fedmia.power.Resolution` for each rate of ``metrics.fprs``.
    """

    members: int
    nonmembers: int
    rows: list[dict[str, Any]]
    text: str


def plan(stage: Stage) -> Plan:
    """Return what the experiment can resolve, whatever its attacks turn out to be worth."""
    owner = targets_among(stage, {k: k for k in range(stage.config.num_clients)}).owner
    members, nonmembers = int((owner >= 0).sum()), int((owner == -1).sum())
    rates = [fpr for fpr in stage.metrics.fprs if fpr < 1]
    rows, text = power.describe(
        members, nonmembers, rates, stage.metrics.confidence, attacks=len(stage.attacks)
    )
    return Plan(members, nonmembers, rows, text)
