"""One small figure of step curves, written as SVG directly: a page has a dozen of them.

Matplotlib takes a quarter of a second for each, most of it to lay out what is always the same.
"""

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 223.2, 187.2
"""In points, 1/72 inch."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 217.0, 20.0, 136.0  # of the axes
_MARGIN = 0.04  # of what is shown
_SHORT = 5  # characters of a label that six of fit under the axes


class Steps(NamedTuple):
    """One height a bin, drawn as a line with a legend entry, over a tint or dotted without one."""

    label: str
    heights: Sequence[float]
    colour: str
    filled: bool = True


def panel(
    title: str,
    axis_labels: tuple[str, str],
    edges: Sequence[float],
    curves: Sequence[Steps],
    *,
    description: str,
) -> str:
    """Return the figure, ``description`` its label for who cannot see it.

    Parameters
    ----------
    title
        Above the axes.
    axis_labels
        Of the horizontal and of the vertical axis.
    edges
        Of the bins, one more than each curve has heights.
    curves
        Drawn in this order; heights are shares, in [0, 1].
    """
    margin = _MARGIN * (edges[-1] - edges[0])
    first, last = edges[0] - margin, edges[-1] + margin
    highest = (1 + _MARGIN) * (max(max(curve.heights) for curve in curves) or 1.0)
    across = _scale(first, last, _LEFT, _RIGHT)
    up = _scale(0.0, highest, _BOTTOM, _TOP)
    parts = [
        f'<svg role="img" aria-label="{html.escape(description)}" '
        f'xmlns="http://www.w3.org/2000/svg" width="{WIDTH}pt" height="{HEIGHT}pt" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="9" fill="none">'
    ]
    for value in ticks(0.0, highest):
        y = up(value)
        parts.append(
            f'<path d="M{_LEFT:g} {y:.1f}H{_RIGHT:g}" stroke="#e4e4e4" stroke-width=".6"/>'
        )
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}h-3.5" stroke="#444" stroke-width=".8"/>')
        parts.append(_text(f"{value * 100:g}%", _LEFT - 6, y + 3.2, anchor="end"))
    for value, label in _labelled(first, last):
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {_BOTTOM:g}v3.5" stroke="#444" stroke-width=".8"/>')
        parts.append(_text(label, x, _BOTTOM + 13))
    parts += [_curve(curve, [across(edge) for edge in edges], up) for curve in curves]
    frame = f"M{_LEFT:g} {_TOP:g}V{_BOTTOM:g}H{_RIGHT:g}"
    parts.append(f'<path d="{frame}" stroke="#444" stroke-width=".8"/>')
    middle, centre = (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2
    parts.append(_text(title, middle, 12, size=10.8))
    parts.append(_text(axis_labels[0], middle, _BOTTOM + 26))
    parts.append(f'<g transform="translate(10 {centre:g}) rotate(-90)">')
    parts.append(_text(axis_labels[1], 0, 0) + "</g>")
    return "\n".join([*parts, *_legend(curves), "</svg>"])


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers in [low, high] at most ``most`` steps of 1, 2 or 5 · 10^k apart."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999999)
    ends = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(ends[0], ends[1] + 1)]


def _labelled(low: float, high: float) -> list[tuple[float, str]]:
    """Return the ticks with as many digits as tell them apart, fewer ticks if these are long."""
    for most in (6, 3):
        values = ticks(low, high, most)
        shown = ([f"{value:.{digits}g}" for value in values] for digits in range(6, 18))
        labels = next(texts for texts in shown if len(set(texts)) == len(values))
        if max(map(len, labels)) <= _SHORT:
            break
    return [(v, text.replace("-", "−")) for v, text in zip(values, labels, strict=True)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / ((high - low) or 1.0) * (end - start)


def _curve(curve: Steps, edges: Sequence[float], up: Callable[[float], float]) -> str:
    steps = zip(curve.heights, edges[1:], strict=True)
    line = "".join(f"V{up(height):.1f}H{edge:.1f}" for height, edge in steps)
    path = f"M{edges[0]:.1f} {_BOTTOM:g}{line}V{_BOTTOM:g}"
    return f'<path d="{path}" {_ink(curve)}/>'


def _ink(curve: Steps) -> str:
    drawn = f'stroke="{curve.colour}" stroke-width="1.2"'
    tint = f' fill="{curve.colour}" fill-opacity=".3"'
    return drawn + (tint if curve.filled else ' stroke-dasharray="1.2 2"')


def _legend(curves: Sequence[Steps]) -> list[str]:
    widths = [27 + 3.9 * len(curve.label) for curve in curves]
    x, parts = (WIDTH - sum(widths)) / 2, []
    for curve, width in zip(curves, widths, strict=True):
        shape = f"{HEIGHT - 4.5:g}h10v-5h-10z" if curve.filled else f"{HEIGHT - 7:g}h10"
        parts.append(f'<path d="M{x:.1f} {shape}" {_ink(curve)}/>')
        parts.append(_text(curve.label, x + 14, HEIGHT - 4.5, size=7, anchor="start"))
        x += width
    return parts


def _text(text: str, x: float, y: float, *, size: float = 9, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" '
        f'fill="#000">{html.escape(text)}</text>'
    )
