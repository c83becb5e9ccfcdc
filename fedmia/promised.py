"""What a run says in ``result.json`` of its promises, and of canary clients that test them."""

from typing import Literal, NotRequired, TypedDict

from fedmia.schema import Count


class RoundEpsilon(TypedDict):
    """Claimed and measured after one round; null where there is none."""

    round: Count
    epsilon_claimed: float | None
    epsilon_lower_bound: NotRequired[float | None]
    epsilon_ceiling: NotRequired[float | None]


class PrivacyClaim(TypedDict):
    """A promise of differential privacy, and what stands behind it."""

    part: str  # the key of the configuration whose part makes it
    unit: Literal["client", "record"]  # what neighbouring federations differ in
    neighbours: Literal["add_remove", "replace_one"] | None
    epsilon: float | None  # null: there is none, or it is infinite (see reasons)
    epsilon_rdp: float | None  # cross-check; null where it does not apply
    epsilon_replace_one: float | None  # of the same mechanism; null where no accountant covers it
    delta: float | None
    method: str | None  # of epsilon: PLD, RDP, …
    rounds: Count  # releases that were counted
    holds_against: list[str]  # vantages
    noise: Literal["seeded", "secure"]
    reasons: list[str]  # assumptions, or why there is no ε
    per_round: list[RoundEpsilon]


class RoundBound(TypedDict):
    """What canary clients prove after one round."""

    round: Count
    epsilon_lower_bound: float | None


class CanaryClients(TypedDict):
    """What clients that send random directions show (Andrew et al., ICLR 2024)."""

    count: Count
    dimension: Count
    epsilon_estimate_final: float | None  # no confidence is attached to estimates
    epsilon_estimate_all_rounds: float | None
    epsilon_lower_bound: float | None
    epsilon_ceiling: float | None
    normality: float | None  # p-value; where it is small, estimates mean nothing
    per_round: list[RoundBound]
