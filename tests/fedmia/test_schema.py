from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest

from fedmia.schema import MismatchError, Rule, check


class Circle(TypedDict):
    status: Literal["circle"]
    radius: Annotated[float, Rule("> 0", lambda v: v > 0)] | None


class Square(TypedDict):
    status: Literal["square"]
    side: int


class Drawing(TypedDict):
    shapes: list[Circle | Square]
    labels: dict[str, str]
    closed: bool
    extra: Any
    title: NotRequired[str | None]


def drawing(**changes: Any) -> dict[str, Any]:
    shapes = [{"status": "circle", "radius": 2.5}, {"status": "square", "side": 3}]
    return {"shapes": shapes, "labels": {"a": "b"}, "closed": True, "extra": [1, {"x": None}]} | (
        changes
    )


@pytest.mark.parametrize(
    "value",
    [
        drawing(),
        drawing(shapes=[]),
        drawing(shapes=[{"status": "circle", "radius": None}]),
        drawing(shapes=[{"status": "circle", "radius": 2}]),
        drawing(title=None),
        drawing(unknown=1),
    ],
)
def test_a_value_that_follows_its_annotation_passes(value: object) -> None:
    check(value, Drawing)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "document=a list: expected an object"),
        (drawing(shapes=None), "shapes=None: expected a list"),
        (drawing(shapes=[3]), "shapes[0]=3: expected an object"),
        (
            drawing(shapes=[{"status": "line"}]),
            'shapes[0].status=\'line\': expected "circle" or "square"',
        ),
        (drawing(shapes=[{}]), 'shapes[0].status=None: expected "circle" or "square"'),
        (drawing(shapes=[{"status": "square"}]), "shapes[0].side: missing"),
        (
            drawing(shapes=[{"status": "square", "side": 1.0}]),
            "shapes[0].side=1.0: expected an integer",
        ),
        (
            drawing(shapes=[{"status": "square", "side": True}]),
            "shapes[0].side=True: expected an integer",
        ),
        (
            drawing(shapes=[{"status": "circle", "radius": float("nan")}]),
            "shapes[0].radius=nan: expected a finite number",
        ),
        (
            drawing(shapes=[{"status": "circle", "radius": -1}]),
            "shapes[0].radius=-1: expected > 0",
        ),
        (drawing(labels={"a": 1}), "labels.a=1: expected a string"),
        (drawing(labels={1: "a"}), "labels key=1: expected a string"),
        (drawing(labels=[]), "labels=a list: expected an object"),
        (drawing(closed=1), "closed=1: expected true or false"),
        (
            drawing(extra={"deep": [0, float("inf")]}),
            "extra.deep[1]=inf: expected a finite number",
        ),
        (drawing(title={}), "title=an object: expected a string"),
    ],
)
def test_the_first_field_that_does_not_is_named_with_what_is_allowed(
    value: object, message: str
) -> None:
    with pytest.raises(MismatchError) as caught:
        check(value, Drawing)
    assert str(caught.value) == message


def test_true_is_not_the_number_one() -> None:
    with pytest.raises(MismatchError, match="expected 1"):
        check(True, Literal[1])


def test_array_scalars_that_json_cannot_write_are_refused() -> None:
    check(np.float64(0.5), float)
    with pytest.raises(MismatchError, match="expected a finite number"):
        check(np.float32(0.5), float)
    with pytest.raises(MismatchError, match="expected an integer"):
        check(np.int64(3), int)
    with pytest.raises(MismatchError, match="expected a plain JSON value"):
        check(np.zeros(2), Any)


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(MismatchError) as caught:
        check("x" * 10_000, int)
    assert len(str(caught.value)) < 120
