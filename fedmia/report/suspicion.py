"""Clients under suspicion in words, cells and one small chart a client."""

import html
from collections.abc import Sequence

from fedmia.report.plots import COLOURS, GREY
from fedmia.report.wording import number, percent
from fedmia.results import Result
from fedmia.suspected import RoundReputations, Suspected, Suspicion

MOST_ROWS = 100
"""Entries of the audit list on the page; ``result.json`` has all."""
MOST_CHARTS = 60
_ACROSS, _WIDTH, _HEIGHT = 5, 172.0, 70.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 16.0, 160.0, 17.0, 57.0  # of the axes in a cell
_POINTS = 200


def line(result: Result) -> str | None:
    """Return who was flagged in one line; ``None`` if nobody was and nobody attacks."""
    found = result.get("suspicion")
    if not found or not (found["flags"] or found["attackers"]):
        return None
    flagged = sorted({flag["client"] for flag in found["flags"]})
    isolated = sorted({flag["client"] for flag in found["flags"] if flag["isolated"]})
    said = f"{_clients(flagged)} flagged, {_clients(isolated)} left out"
    if found["attackers"]:
        first = found["first_detection"]
        since = "" if first is None else f", the first in round {first}"
        said += f"; {percent(found['detection_rate'], 0)} of attackers found{since}"
    return f"{said}; {percent(found['false_positive_rate'], 0)} of honest clients flagged"


def rates(found: Suspicion) -> list[tuple[str, str]]:
    """Return ``(what, value)`` of how well suspicion met those who attack."""
    who = ", ".join(map(str, found["attackers"])) or "nobody"
    return [
        ("clients that attack", who),
        ("attackers flagged", percent(found["detection_rate"])),
        ("attackers isolated", percent(found["isolation_rate"])),
        ("honest clients flagged", percent(found["false_positive_rate"])),
        ("honest clients isolated", percent(found["false_isolation_rate"])),
        ("first detection in round", number(found["first_detection"], 0)),
    ]


def audit_list(found: Suspicion) -> list[tuple[str, ...]]:
    """Return the cells of the audit list: round, client, reason, evidence, left out."""
    return [
        (
            str(flag["round"]),
            str(flag["client"]),
            flag["reason"],
            ", ".join(f"{name.replace('_', ' ')} {v:.3g}" for name, v in flag["evidence"].items()),
            "left out" if flag["isolated"] else "kept",
        )
        for flag in found["flags"][:MOST_ROWS]
    ]


def chart(found: Suspicion) -> str | None:
    """Return each client's reputation by round as SVG; ``None`` where the strategy kept none.

    Rounds in which a client was isolated are tinted, those in which it was flagged have a mark
    above. Of more clients than fit, those that attack or were flagged come first.
    """
    if not found["reputations"]:
        return None
    flagged = {flag["client"] for flag in found["flags"]}
    named = {int(client) for row in found["reputations"] for client in row["clients"]}
    urgent = flagged | set(found["attackers"])
    shown = sorted(sorted(named, key=lambda c: (c not in urgent, c))[:MOST_CHARTS])
    rows = -(-len(shown) // _ACROSS)
    width, height = _ACROSS * _WIDTH, rows * _HEIGHT
    parts = [
        f'<svg role="img" aria-label="Reputation of {len(shown)} clients by round" '
        f'xmlns="http://www.w3.org/2000/svg" width="{width:g}pt" height="{height:g}pt" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="8" fill="none">'
    ]
    for place, client in enumerate(shown):
        x, y = place % _ACROSS * _WIDTH, place // _ACROSS * _HEIGHT
        about = [flag for flag in found["flags"] if flag["client"] == client]
        attacks = client in found["attackers"]
        drawn = _cell(client, found["reputations"], about, attacks=attacks)
        parts.append(f'<g transform="translate({x:g} {y:g})">{drawn}</g>')
    return "\n".join([*parts, "</svg>"])


def _cell(
    client: int, rows: Sequence[RoundReputations], flags: Sequence[Suspected], *, attacks: bool
) -> str:
    first, last = rows[0]["round"], rows[-1]["round"]
    step = (_RIGHT - _LEFT) / (last - first + 1)

    def across(server_round: float) -> float:
        return _LEFT + (server_round - first) * step

    parts = [
        f'<path d="M{across(start):.1f} {_TOP:g}H{across(end + 1):.1f}V{_BOTTOM:g}'
        f'H{across(start):.1f}z" fill="{COLOURS[1]}" fill-opacity=".22"/>'
        for start, end in spans([row["round"] for row in rows if client in row["isolated"]])
    ]
    points = [(r["round"], r["clients"][str(client)]) for r in rows if str(client) in r["clients"]]
    kept = [*points[:: max(1, len(points) // _POINTS)], points[-1]]
    track = " ".join(
        f"{across(number_ + 0.5):.1f},{_BOTTOM - value * (_BOTTOM - _TOP):.1f}"
        for number_, value in kept
    )
    parts.append(f'<polyline points="{track}" stroke="{COLOURS[0]}" stroke-width="1.4"/>')
    marks = "".join(
        f"M{across(number_ + 0.5):.1f} {_TOP - 5:g}v4"
        for number_ in sorted({f["round"] for f in flags})
    )
    if marks:
        parts.append(f'<path d="{marks}" stroke="{COLOURS[1]}" stroke-width="1.2"/>')
    frame = f"M{_LEFT:g} {_TOP:g}V{_BOTTOM:g}H{_RIGHT:g}"
    parts.append(f'<path d="{frame}" stroke="{GREY}" stroke-width=".8"/>')
    title = html.escape(f"client {client}" + (" (attacks)" if attacks else ""))
    colour = "#b34700" if attacks else "#000"
    parts.append(f'<text x="{_LEFT:g}" y="9" fill="{colour}">{title}</text>')
    for text, x, y, anchor in (
        ("1", _LEFT - 3, _TOP + 6, "end"),
        ("0", _LEFT - 3, _BOTTOM, "end"),
        (str(first), _LEFT, _BOTTOM + 9, "start"),
        (str(last), _RIGHT, _BOTTOM + 9, "end"),
    ):
        parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="7" fill="{GREY}" text-anchor="{anchor}">'
            f"{text}</text>"
        )
    return "".join(parts)


def spans(rounds: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of consecutive, ascending numbers."""
    found: list[tuple[int, int]] = []
    for value in rounds:
        if found and value == found[-1][1] + 1:
            found[-1] = found[-1][0], value
        else:
            found.append((value, value))
    return found


def _clients(numbers: Sequence[int]) -> str:
    if not numbers:
        return "nobody"
    shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    return f"{'client' if len(numbers) == 1 else 'clients'} {shown}"
