"""Claimed and proved ε after each round, as a figure."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fedmia.report.claims import covering
from fedmia.report.plots import COLOURS, GREY, shorten, svg
from fedmia.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = list[tuple[int, float]]


def figure(result: Result) -> str | None:
    """Return claimed ε, lower bounds and ceilings by round, ``None`` without anything to draw.

    Black is what is claimed against this vantage, grey what is claimed against others alone; the
    cross is that claim about replacing one record, which the bounds on records are about. The axis
    of ε is linear below 1 and logarithmic above.
    """
    privacy = result["privacy"]
    rounds = privacy.get("per_round", [])
    claimed = _points(rounds, "epsilon_claimed")
    others = [
        (claim["part"], found)
        for claim in privacy.get("claims", [])
        if not claimed and (found := _points(claim["per_round"], "epsilon_claimed"))
    ]
    bounds, ceilings = (_points(rounds, f"epsilon_{what}") for what in ("lower_bound", "ceiling"))
    canaries = privacy.get("canary_clients")
    planted = _points(canaries["per_round"], "epsilon_lower_bound") if canaries else []
    if not (claimed or others or planted):
        return None
    claim, comparable = covering(result), privacy.get("epsilon_comparable")

    def draw(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.subplots()
        if claimed:
            axes.plot(*_split(claimed), color="#000000", label="claimed")
        if claimed and claim and comparable is not None and comparable != claim["epsilon"]:
            label = "claimed for replacing one"
            axes.plot(*_split([(claimed[-1][0], comparable)]), "x", color="#000000", label=label)
        for part, points in others:
            label = shorten(f"{part}, not against this vantage", 45)
            axes.plot(*_split(points), color=GREY, label=label)
        if bounds:
            axes.plot(*_split(bounds), "o", color=COLOURS[1], markersize=4, label="proved at least")
        if ceilings:
            axes.plot(*_split(ceilings), "--", color=COLOURS[1], label="ceiling of that", lw=1)
        if planted:
            label = "proved by canary clients"
            axes.plot(*_split(planted), "^", color=COLOURS[0], markersize=4, label=label)
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set(xlabel="round", ylabel="ε", ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)

    return svg("epsilons", (6.4, 3.6), "Claimed and proved epsilon by round", draw)


def _points(rounds: Iterable[Mapping[str, Any]], field: str) -> Points:
    found = ((entry["round"], entry.get(field)) for entry in rounds)
    return [(number, value) for number, value in found if value is not None]


def _split(points: Points) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
