import re
import xml.etree.ElementTree as ET

import pytest

from fedmia.report.panel import Steps, panel, ticks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(edges=(0.0, 1.0, 2.0), heights=(0.25, 0.75), **kwargs):
    text = panel(
        "t", ("x", "y"), edges, [Steps("a", heights, "#123456")], description="d", **kwargs
    )
    return ET.fromstring(text)


def labels(svg):
    return [node.text for node in svg.iter(f"{SVG}text")]


def coloured(svg):
    return next(n for n in svg.iter(f"{SVG}path") if n.get("stroke") == "#123456").get("d")


def test_bars_are_as_high_and_wide_as_their_numbers():
    path = coloured(drawn())
    start, base = map(float, re.match(r"M([\d.]+) ([\d.]+)", path).groups())
    (up, right), (higher, end) = [
        tuple(map(float, step)) for step in re.findall(r"V([\d.]+)H([\d.]+)", path)
    ]
    assert right - start == pytest.approx(end - right, abs=0.11)
    assert (base - higher) / (base - up) == pytest.approx(3, abs=0.02)
    assert path.endswith(f"V{base:g}")


def test_no_height_at_all_lies_on_the_axis():
    path = coloured(drawn(heights=(0.0, 0.0)))
    assert {float(y) for y in re.findall(r"V([\d.]+)", path)} == {136.0}


def test_only_what_is_filled_has_a_tint():
    curves = [Steps("a", [1.0], "#111111"), Steps("b", [1.0], "#222222", filled=False)]
    svg = ET.fromstring(panel("t", ("x", "y"), [0, 1], curves, description="d"))
    for node in svg.iter(f"{SVG}path"):
        if node.get("stroke") == "#111111":
            assert node.get("fill") == "#111111"
        if node.get("stroke") == "#222222":
            assert node.get("fill") is None
            assert node.get("stroke-dasharray")


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-21, 1, 6, [-20, -15, -10, -5, 0]),
        (0, 0.105, 6, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (3, 17, 3, [5, 10, 15]),
        (2, 2, 6, [2]),
    ],
)
def test_ticks_are_round_and_inside(low, high, most, expected):
    assert ticks(low, high, most) == pytest.approx(expected)


@pytest.mark.parametrize("edges", [(0.999999, 1.0), (-1e17, -1e17), (-3e-9, 2e-9), (1e6, 3e6)])
def test_labels_of_any_range_differ_and_fit(edges):
    svg = drawn(edges, (1.0,))
    under = [n for n in svg.iter(f"{SVG}text") if n.get("y") == "149.0"]
    assert len({n.text for n in under}) == len(under) >= 1
    assert sum(len(n.text) for n in under) <= 36
    assert "nan" not in ET.tostring(svg).decode().lower()


def test_texts_are_escaped():
    text = panel("<b>", ('"', "&"), [0, 1], [Steps("<i>", [1.0], "#000000")], description='">')
    svg = ET.fromstring(text)
    assert {"<b>", '"', "&", "<i>"} <= set(labels(svg))
    assert svg.get("aria-label") == '">'
