"""The report's figures, each a self-contained SVG whose text stays text."""

import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmia.report.compare import Comparison, Row
from fedmia.report.panel import Steps, panel
from fedmia.report.wording import measured, number
from fedmia.results import Measured, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by all common kinds of colour vision; its yellow is left out
# because it vanishes on white. Line styles carry on where colours repeat.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("solid", "dashed", "dashdot", "dotted")
GREY = "#767676"
MOST_CURVES = 8
"""More curves than this in one figure cannot be told apart."""
MOST_PANELS = 12
"""More small figures, or columns of one table, than this are not looked at."""
POINTS = 120

_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are data: a dollar sign in one is no formula
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def roc(result: Result) -> str | None:
    """Return the ROC curves of the strongest attacks on log–log axes, or ``None`` without any.

    Both axes start at 1/N, one over the number of held-out records: what lies left of it cannot
    be estimated. The grey diagonal is guessing.
    """
    shown = curves(result)
    if not shown:
        return None
    floor = min(0.5, 1 / max(1, result["candidates"]["nonmembers"]))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([floor, 1], [floor, 1], color=GREY, linewidth=1, linestyle="dashed")
        for index, attack in enumerate(shown):
            fpr, tpr = visible_roc(attack["roc"]["fpr"], attack["roc"]["tpr"], floor)
            label = f"{shorten(attack['name'], 30)} ({number(attack['auc'])})"
            axes.plot(fpr, tpr, drawstyle="steps-post", label=label, **stroke(index))
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1))
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
        axes.xaxis.set_major_formatter(as_percent)
        axes.yaxis.set_major_formatter(as_percent)
        axes.legend(title="attack (AUC)", loc="lower right")

    names = ", ".join(attack["name"] for attack in shown)
    return svg("roc", (4.7, 4.2), f"ROC curves on log-log axes: {names}", draw)


def histogram(attack: Measured) -> str:
    """Return how the scores of the populations of one attack are spread."""
    bins = attack["histogram"]
    shown = [
        Steps("held out", _shares(bins["nonmembers"]), COLOURS[1]),
        Steps("members", _shares(bins["members"]), COLOURS[0]),
    ]
    if bins["other_members"] is not None:
        others = _shares(bins["other_members"])
        shown.append(Steps("other members", others, "#000000", filled=False))
    return panel(
        shorten(attack["name"], 40),
        ("score (higher = member)", "share"),
        bins["edges"],
        shown,
        description=f"Score histogram of {attack['name']}",
    )


def per_round(result: Result) -> str | None:
    """Return AUC and test accuracy against the round, or ``None`` where neither was followed."""
    followed = [attack for attack in curves(result) if attack["auc_per_round"]]
    accuracy = result["utility"]["per_round"]
    if not followed and not accuracy:
        return None

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(
            bool(followed) + bool(accuracy), 1, sharex=True, squeeze=False
        ).ravel()
        if followed:
            panels[0].axhline(0.5, color=GREY, linewidth=1, linestyle="dashed")
            for index, attack in enumerate(followed):
                points = [(p["round"], _nan(p["auc"])) for p in attack["auc_per_round"] or ()]
                panels[0].plot(*_thin(points), label=shorten(attack["name"], 30), **stroke(index))
            panels[0].set(ylabel="AUC")
            figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        if accuracy:
            points = [(p["round"], _nan(p["test_accuracy"])) for p in accuracy]
            panels[-1].plot(*_thin(points), color="#000000")
            panels[-1].set(ylabel="test accuracy")
        panels[-1].set(xlabel="round")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)

    height = 1.75 * (bool(followed) + bool(accuracy)) + 0.7 + 0.09 * len(followed)
    return svg("rounds", (4.7, height), "AUC and test accuracy by round", draw)


def forest(comparison: Comparison, names: Sequence[str]) -> str | None:
    """Return the AUC of every row of a comparison with its interval, ``names`` beside them."""
    rows = [(row, name) for row, name in zip(comparison.rows, names, strict=True) if row.auc]
    if not rows:
        return None

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(0.5, color=GREY, linewidth=1, linestyle="dashed")
        for height, (row, _) in enumerate(rows):
            _interval(axes, row, height)
        axes.set_yticks(range(len(rows)), [shorten(name, 60) for _, name in rows])
        axes.set(xlabel="AUC", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")

    return svg("forest", (6.4, 0.8 + 0.26 * len(rows)), "AUC of every row with its interval", draw)


def curves(result: Result) -> list[Measured]:
    """Return the attacks a crowded figure shows: the highest AUCs, highest first."""
    return sorted(measured(result["attacks"]), key=lambda a: -a["auc"])[:MOST_CURVES]


def visible_roc(
    fpr: Sequence[float], tpr: Sequence[float], floor: float
) -> tuple[list[float], list[float]]:
    """Return the part of a ROC curve at or right of ``floor``, thinned evenly on a log axis.

    What lies left of ``floor`` becomes one point on it. Of the points that share one of ``POINTS``
    columns the last is kept, so that every point returned is a point of the curve.
    """
    x = np.maximum(np.asarray(fpr, dtype=np.float64), floor)
    y = np.maximum.accumulate(np.asarray(tpr, dtype=np.float64))
    column = np.ceil(np.log(x / floor) / -np.log(floor) * POINTS)
    last = np.append(np.diff(column) > 0, True)
    # A logarithmic axis has no zero: such points are drawn below its lower end.
    return x[last].tolist(), np.maximum(y[last], floor / 2).tolist()


def shorten(text: str, most: int) -> str:
    """Return ``text``, cut to ``most`` characters: a figure has no room for more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def svg(name: str, size: tuple[float, float], label: str, draw: Callable[["Figure"], None]) -> str:
    """Return what ``draw`` puts on a figure of ``size`` inches, described by ``label``."""
    # Imported here: a terminal table must not wait for matplotlib.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The salt keeps the ids of several figures on one page apart, and the same in every run.
    with mpl.rc_context({**_LOOK, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    body = text.getvalue()
    body = body[body.index("<svg") :].strip()
    return body.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def stroke(index: int) -> dict[str, Any]:
    """Return the colour and the line style of one of several curves."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": STYLES[index // len(COLOURS) % len(STYLES)],
    }


def as_percent(value: float, _: object) -> str:
    """Return the label of a tick that is a share."""
    return f"{value * 100:g}%"


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _interval(axes: "Axes", row: Row, height: float) -> None:
    if row.auc is not None:
        colour = COLOURS[1] if row.confounded else COLOURS[0]
        axes.plot([row.auc.low, row.auc.high], [height, height], color=colour)
        axes.plot([row.auc.mean], [height], marker="o", markersize=4, color=colour)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _thin(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Return at most about ``2 * POINTS`` of ``points`` as two lists, first and last among them."""
    step = max(1, len(points) // (2 * POINTS))
    kept = list(points[::step])
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return [x for x, _ in kept], [y for _, y in kept]
