"""What the parts of a federation promise together: collected, counted, and held against bounds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedmia.privacy.claim import Claim, Claiming, Setting
from fedmia.privacy.cost import Cost, Neighbours
from fedmia.promised import PrivacyClaim, RoundEpsilon
from fedmia.stack import Stack, wrapped

CURVE_POINTS = 20
"""Rounds at which the spent ε is given, at most."""

Count = Callable[[int], int]
"""How many releases there were up to a round."""


def collect(stack: Stack, records: Sequence[int], rounds: int) -> list[tuple[str, Claim]]:
    """Return every claim that stands, with the key of the part that makes it, strategies first.

    Parameters
    ----------
    stack
        What is put together.
    records
        Number of records of each client that has any.
    rounds
        Of training, as configured.
    """
    strategies, mods = _made(stack, records, rounds)
    voids = [name for name, mod in stack.mods.items() if getattr(mod, "voids_epsilon", False)]
    depends = [f"{name} bounds updates by what depends on the client's data" for name in voids]
    depends += filter(None, (getattr(s, "voids_epsilon", "") for _, s in wrapped(stack.strategy)))
    if any(getattr(mod, "replaces_claims", False) for mod in stack.mods.values()):
        return [(key, _voided(claim, depends)) for key, claim in mods]
    return [*((key, _voided(claim, depends)) for key, claim in strategies), *mods]


def warnings(stack: Stack, records: Sequence[int], rounds: int) -> list[str]:
    """Return what weakens a claim and is allowed, a line each; see :func:`collect`."""
    strategies, mods = _made(stack, records, rounds)
    return [f"{key}.{line}" for key, claim in [*strategies, *mods] for line in claim.warnings]


def _made(
    stack: Stack, records: Sequence[int], rounds: int
) -> tuple[list[tuple[str, Claim]], list[tuple[str, Claim]]]:
    """Return the claims of the strategies, and those of the mods, which know of the former."""
    setting = Setting(
        records=tuple(records),
        rounds=rounds,
        hidden=str(getattr(stack.strategy, "hides_updates", "")),
        length=stack.length,
    )
    strategies = [
        (key, claim)
        for key, strategy in wrapped(stack.strategy)
        if isinstance(strategy, Claiming)
        for claim in strategy.claims(setting)
    ]
    setting = replace(setting, strategies=tuple(claim for _, claim in strategies))
    mods = [
        (f"client.defenses.{name}", claim)
        for name, mod in stack.mods.items()
        if isinstance(mod, Claiming)
        for claim in mod.claims(setting)
    ]
    return strategies, mods


def spent(
    claims: Sequence[tuple[str, Claim]], released: int, participations: Mapping[int, Sequence[int]]
) -> list[PrivacyClaim]:
    """Return what has been spent of each claim.

    Parameters
    ----------
    claims
        From :func:`collect`.
    released
        Rounds in which the server released a model.
    participations
        The rounds in which each client's answer could be seen, by client.
    """

    def by_client(until: int) -> int:
        return max((sum(r <= until for r in own) for own in participations.values()), default=0)

    def by_round(until: int) -> int:
        return min(until, released)

    last = max([released, *(own[-1] for own in participations.values() if own)])
    return [
        _spent(part, claim, last, by_client if claim.per_participation else by_round)
        for part, claim in claims
    ]


def covering(claims: Sequence[PrivacyClaim], vantage: str) -> PrivacyClaim | None:
    """Return the claim with the smallest ε of those that hold against a vantage.

    One without ε is chosen where none has any; ``None`` where no claim covers the vantage.
    """
    held = [claim for claim in claims if vantage in claim["holds_against"]]
    return min(held, key=lambda claim: _or_infinite(claim["epsilon"]), default=None)


def comparable(claims: Sequence[PrivacyClaim], vantage: str) -> PrivacyClaim | None:
    """Return the claim that bounds about one record are held against from a vantage.

    Of those that hold against it, the one with the smallest ε of replacing one, which need not be
    that with the smallest ε; ``None`` where none has such an ε.
    """
    known = [
        claim
        for claim in claims
        if vantage in claim["holds_against"] and claim["epsilon_replace_one"] is not None
    ]
    return min(known, key=lambda claim: _or_infinite(claim["epsilon_replace_one"]), default=None)


def against(claims: Sequence[PrivacyClaim], vantage: str) -> dict[str, Any]:
    """Return the fields of ``privacy`` that say what is promised against a vantage."""
    claim, of_records = covering(claims, vantage), comparable(claims, vantage)
    return {
        "claims": list(claims),
        "epsilon_claimed": claim and claim["epsilon"],
        "epsilon_comparable": of_records and of_records["epsilon_replace_one"],
        "delta": claim and claim["delta"],
        "per_round": claim["per_round"] if claim else [],
    }


def alarm(privacy: Mapping[str, Any]) -> str | None:
    """Return the line that says which bound exceeds which claim, ``None`` where none does.

    Records are replaced one by another, or canaries added: the bound is held against the claim
    about replacing one, which is never below that about adding one. Canary clients take part or do
    not: no claim about clients, under either relation, promises less.
    """
    bound, comparable = privacy.get("epsilon_lower_bound"), privacy.get("epsilon_comparable")
    if bound is not None and comparable is not None and bound > comparable:
        return (
            f"attacks prove ε ≥ {bound:.2f} for one record, claimed is {comparable:.2f}: "
            "the mechanism is not what it is claimed to be"
        )
    canaries = privacy.get("canary_clients")
    proved = canaries and canaries["epsilon_lower_bound"]
    claims = [c for c in privacy.get("claims", ()) if c["unit"] == "client"]
    claim = covering(claims, "aggregate")
    claimed = claim and claim["epsilon"]
    if proved is not None and claimed is not None and proved > claimed:
        return (
            f"canary clients prove ε ≥ {proved:.2f} for one client, claimed is {claimed:.2f}: "
            "the mechanism is not what it is claimed to be"
        )
    return None


def _spent(part: str, claim: Claim, last: int, count: Count) -> PrivacyClaim:
    account = claim.account
    total = count(last)
    reasons = [*claim.reasons, *claim.warnings]
    epsilon = account.epsilon(total) if account else None
    if epsilon == math.inf:
        reasons.append("there is no noise: ε is infinite")
    return {
        "part": part,
        "unit": claim.unit,
        "neighbours": account.neighbours.value if account else None,
        "epsilon": _finite(epsilon),
        "epsilon_rdp": _finite(account.epsilon_rdp(total)) if account else None,
        "epsilon_replace_one": _replacing(account, total),
        "delta": account.delta if account else None,
        "method": account.method if account else None,
        "rounds": total,
        "holds_against": list(claim.holds_against),
        "noise": "secure" if claim.secure else "seeded",
        "reasons": reasons,
        "per_round": list(_curve(account, last, count)) if account else [],
    }


def _curve(account: Cost, last: int, count: Count) -> Iterator[RoundEpsilon]:
    rounds = np.unique(np.linspace(1, last, min(last, CURVE_POINTS)).round().astype(int)).tolist()
    totals = [count(r) for r in rounds]
    values = dict(zip(sorted(set(totals)), account.curve(sorted(set(totals))), strict=True))
    for server_round, total in zip(rounds, totals, strict=True):
        yield {"round": server_round, "epsilon_claimed": _finite(values[total])}


def _replacing(account: Cost | None, total: int) -> float | None:
    other = account and account.under(Neighbours.REPLACE_ONE)
    return _finite(other.epsilon(total)) if other else None


def _voided(claim: Claim, depends: Sequence[str]) -> Claim:
    """Return a claim without ε where the sum depends on data in a way that no noise covers."""
    if not depends:
        return claim
    reasons = tuple(f"no ε: {reason}" for reason in depends)
    return replace(claim, account=None, reasons=reasons, secure=False)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
