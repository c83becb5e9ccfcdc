"""What a run whose updates were hidden from the server says of that in ``result.json``."""

from typing import Literal, TypedDict

from fedmia.schema import Count, Share

MUCH_CLIPPED = 0.01
"""A larger share of clipped coordinates than this is worth a note."""


class LeakCheck(TypedDict):
    """What masked words look like, see :mod:`fedmia.leaks`; p-values of uniform masks."""

    words: Count  # how many were looked at
    bit_p: Share  # each bit is set half of the time
    byte_p: Share  # all values of a byte are equally frequent
    pair_p: Share  # no two vectors share a mask; corrected for the number of pairs
    verdict: Literal["uniform", "not uniform", "too few words"]


class RoundClipped(TypedDict):
    """The share of all clients' coordinates that were clipped in one round."""

    round: Count
    share: Share


class SecureAggregation(TypedDict):
    """How updates were hidden from the server; null where the protocol has no such number."""

    name: str  # of the defence
    neighbours: Count | None  # with whom a client shares masks
    threshold: Count | None  # shares that give a secret back
    bits: Count | None  # of a coordinate, sign included
    modulus_bits: Count | None  # of a word
    bytes_per_client: Count  # masked words that a client sends in a round; 0 where none were seen
    clipped: list[RoundClipped]  # rounds in which it was counted
    abandoned: list[Count]  # rounds that were given up; the reasons stand among the faults


def notes(found: SecureAggregation) -> list[str]:
    """Return what a reader must know of it, a line each."""
    lines = []
    if rounds := found["abandoned"]:
        shown = ", ".join(map(str, rounds[:5])) + (", …" if len(rounds) > 5 else "")
        many = f"{len(rounds)} rounds were" if len(rounds) > 1 else "1 round was"
        lines.append(f"{many} abandoned, the model stayed as it was: {shown}")
    worst = max(found["clipped"], key=lambda seen: seen["share"], default=None)
    if worst and worst["share"] > MUCH_CLIPPED:
        lines.append(
            f"{found['name']} clipped {worst['share']:.1%} of all coordinates in round "
            f"{worst['round']}: the mean is off by more than rounding"
        )
    return lines


def judged(found: LeakCheck) -> tuple[Literal["pass", "fail", "info"], str]:
    """Return the verdict of a guard on masked words, and why."""
    words = f"{found['words']:,} masked words"
    if found["verdict"] == "too few words":
        return "info", f"{words} are too few to judge"
    values = f"p = {found['bit_p']:.2g} (bits), {found['byte_p']:.2g} (bytes)"
    values += f", {found['pair_p']:.2g} (pairs)"
    if found["verdict"] == "uniform":
        return "pass", f"{words} look uniform: {values}"
    return "fail", f"{words} do not look uniform, what they hide may show through: {values}"
