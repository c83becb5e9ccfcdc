"""What a run says in ``result.json`` of clients that its strategy found suspicious."""

from typing import TypedDict

from fedmia.schema import Count, Share


class Suspected(TypedDict):
    """One entry of the audit list: what a strategy has against one client in one round."""

    round: Count
    client: Count
    reason: str
    evidence: dict[str, float]  # the figures behind it by name
    isolated: bool  # whether the update was left out of the aggregate because of it


class RoundReputations(TypedDict):
    """What clients were trusted after one round, by client number, and who was isolated."""

    round: Count
    clients: dict[str, Share]
    isolated: list[Count]


class Suspicion(TypedDict):
    """The audit list, held against who attacks; a rate without anybody to find is null.

    An attacker counts as found by what was said of rounds in which it attacked. Clients that an
    auditor planted are neither attackers nor honest.
    """

    flags: list[Suspected]
    reputations: list[RoundReputations]  # empty where the strategy keeps none
    attackers: list[Count]  # ground truth
    detection_rate: Share | None  # attackers that were flagged
    isolation_rate: Share | None  # attackers that were isolated
    false_positive_rate: Share | None  # honest clients that were flagged
    false_isolation_rate: Share | None  # honest clients that were isolated
    first_detection: Count | None  # the first round in which an attacker was flagged
