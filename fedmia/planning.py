"""What a configuration's candidates can show, told before anything is trained."""

from dataclasses import dataclass
from typing import Any

from fedmia import power
from fedmia.stage import Stage


@dataclass(frozen=True)
class Plan:
    """Counts of what every attack will be asked about, and what they can resolve.

    ``rows`` hold a :class:`fedmia.power.Resolution` for each rate of ``metrics.fprs``.
    """

    members: int
    nonmembers: int
    rows: list[dict[str, Any]]
    text: str


def plan(stage: Stage) -> Plan:
    """Return what the experiment can resolve, whatever its attacks turn out to be worth."""
    owner, observer = stage.candidates.owner, stage.observer
    own = observer.participant if observer.vantage == "participant" else -2
    members = int(((owner >= 0) & (owner != own)).sum())
    nonmembers = int((owner == -1).sum())
    rates = [fpr for fpr in stage.metrics.fprs if fpr < 1]
    rows, text = power.describe(
        members, nonmembers, rates, stage.metrics.confidence, attacks=len(stage.attacks)
    )
    return Plan(members, nonmembers, rows, text)
