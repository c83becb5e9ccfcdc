"""Defences drawn: what the model is worth against what leaks, with the front of the best."""

from typing import TYPE_CHECKING

from fedmia.report.defenses import Page
from fedmia.report.plots import COLOURS, GREY, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(page: Page) -> str | None:
    """Return accuracy over the AUC of the strongest attack; ``None`` without two to draw.

    Bars are intervals over seeds. A line joins those that no other beats in
    both at their vantage.
    """
    points = [
        (row, row.accuracy, leak.auc)
        for row in page.rows
        if row.accuracy is not None and (leak := row.strongest)
    ]
    if len(points) < 2:
        return None
    fronts = [
        sorted((auc.mean, a.mean) for row, a, auc in points if row.front and row.vantage == vantage)
        for vantage in dict.fromkeys(row.vantage for row in page.rows)
    ]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for best in fronts:
            axes.plot([x for x, _ in best], [y for _, y in best], color=COLOURS[0], linewidth=1)
        for row, accuracy, auc in points:
            colour = COLOURS[0] if row.front else GREY
            axes.plot([auc.low, auc.high], [accuracy.mean] * 2, color=colour, linewidth=0.7)
            axes.plot([auc.mean] * 2, [accuracy.low, accuracy.high], color=colour, linewidth=0.7)
            axes.plot([auc.mean], [accuracy.mean], marker="o", markersize=4, color=colour)
            at = (auc.mean, accuracy.mean)
            axes.annotate(row.name, at, (4, 3), textcoords="offset points", fontsize=7)
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="dashed")
        axes.set(xlabel="AUC of the strongest attack", ylabel="test accuracy")

    return svg("defences", (7.2, 5.4), "test accuracy over the AUC of the strongest attack", draw)
