"""The privacy-utility trade-off drawn: leakage and accuracy against the ε that is claimed."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fedmia.report.plots import COLOURS, GREY, MOST_CURVES, as_percent, shorten, stroke, svg
from fedmia.report.pooling import Pooled
from fedmia.report.tradeoff import Point, series
from fedmia.report.wording import tpr_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pick = Callable[[Point], Pooled | None]

_ALONE = COLOURS.index("#000000")  # the accuracy of every attack's runs is no attack's


def figure(points: Sequence[Point], fpr: str) -> str | None:
    """Return AUC, TPR at ``fpr`` and test accuracy over ε, ``None`` where nothing is claimed.

    ε is on a logarithmic axis; what nothing is claimed of stands at its right end, beyond a dotted
    line. Bars are the intervals over seeds, hollow markers claims that do not cover the vantage.
    """
    known = sorted({e for p in points if (e := p.claim.epsilon) is not None and e > 0})
    if not known:
        return None
    lines = series(points)[:MOST_CURVES]
    accuracy = list({name[:-1]: group for name, group in reversed(lines)}.items())[::-1]
    end = known[-1] * max(3.0, (known[-1] / known[0]) ** 0.25)

    def place(p: Point) -> float:
        return end if p.claim.epsilon is None else max(p.claim.epsilon, known[0])

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(3, 1, sharex=True)
        for index, (name, group) in enumerate(lines):
            label = shorten(" · ".join(name), 40)
            _line(panels[0], group, place, lambda p: p.auc, index, label)
            _line(panels[1], group, place, lambda p: p.tpr, index, None)
        for index, (name, group) in enumerate(accuracy):
            setting = shorten(" · ".join(name), 40) if name else None
            colour = index if name else _ALONE
            _line(panels[2], group, place, lambda p: p.accuracy, colour, setting)
        panels[0].axhline(0.5, color=GREY, linewidth=1, linestyle="dashed")
        panels[1].axhline(float(fpr), color=GREY, linewidth=1, linestyle="dashed")
        panels[1].yaxis.set_major_formatter(as_percent)
        for panel, what in zip(panels, ("AUC", tpr_label(fpr), "test accuracy"), strict=True):
            panel.set(ylabel=what)
        if accuracy[0][0]:
            panels[2].legend(fontsize=7)
        _across(panels[2], known, end)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    words = "AUC, true-positive rate and test accuracy by claimed epsilon"
    return svg("tradeoff", (6.4, 5.6 + 0.1 * len(lines)), words, draw)


def _line(
    axes: "Axes",
    group: Sequence[Point],
    place: Callable[[Point], float],
    pick: Pick,
    index: int,
    label: str | None,
) -> None:
    """Draw one series: a line through what is claimed, dots on to what is not."""
    shown = [(place(p), found, p) for p in group if (found := pick(p)) is not None]
    ink = stroke(index)
    for told in (True, False):
        part = [(x, y.mean) for x, y, p in shown if (p.claim.epsilon is not None) is told]
        if not told and len(shown) > len(part):
            part = [(x, y.mean) for x, y, p in shown if p.claim.epsilon is not None][-1:] + part
        style = ink if told else ink | {"linestyle": "dotted"}
        axes.plot([x for x, _ in part], [y for _, y in part], **style)
    for x, y, p in shown:
        fill = ink["color"] if p.claim.covers or p.claim.epsilon is None else "white"
        axes.plot([x, x], [y.low, y.high], color=ink["color"], linewidth=1)
        axes.plot([x], [y.mean], marker="o", markersize=4, color=ink["color"], mfc=fill)
    if label is not None and shown:
        axes.plot([], [], label=label, **ink)


def _across(axes: "Axes", known: Sequence[float], end: float) -> None:
    """Mark round values of ε on the shared axis, and its right end."""
    powers = range(math.floor(math.log10(known[0])), math.ceil(math.log10(known[-1])) + 1)
    steps = (1, 2, 5) if len(powers) < 4 else (1,)
    ladder = [factor * 10.0**power for power in powers for factor in steps]
    low = max((v for v in ladder if v <= known[0]), default=ladder[0])
    high = min((v for v in ladder if v >= known[-1]), default=ladder[-1])
    ticks = [v for v in ladder if low <= v <= high and v < end / 1.5]
    axes.set(xscale="log", xlim=(low / 1.15, end * 1.3), xlabel="ε claimed")
    axes.set_xticks([*ticks, end], [*(f"{v:g}" for v in ticks), "none (∞)"])
    axes.set_xticks([], minor=True)
