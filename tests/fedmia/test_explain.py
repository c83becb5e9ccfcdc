from dataclasses import dataclass

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedmia.explain import explain, unknown, wanted


def said(error, overrides=()):
    return explain(
        error,
        overrides,
        options=lambda group: {"dataset": ["digits", "wine"]}.get(group, []),
        keys=lambda parent: {"": ["seed"], "model": ["_target_", "hidden"]}[parent],
        parses=lambda override: "=" in override,
    )


@dataclass
class Shape:
    lr: float = 0.1


def refusal(value):
    config = OmegaConf.structured(Shape)
    with pytest.raises(OmegaConfBaseException) as caught:
        config.lr = value
    return caught.value


def test_an_unknown_option_lists_the_options_and_the_nearest():
    error = ValueError("In 'config': Could not find 'dataset/digit'\n\nAvailable options")
    expected = "dataset=digit: expected one of digits, wine (did you mean digits?)"
    assert said(error) == expected
    assert said(ValueError("Could not load 'model/x'")) == "model=x: expected one of none"


def test_what_cannot_be_parsed_is_the_culprit():
    error = ValueError("Error parsing override 'b'")
    assert said(error, ["a=1", "b"]) == "b: expected key=value in Hydra's override syntax"


def test_a_refused_value_is_shown_as_it_was_given():
    error = refusal("fast")
    assert said(error, ["seed=1", "+lr=fast"]) == "lr=fast: expected a number"


def test_an_unknown_key_lists_the_known_ones_without_those_of_hydra():
    config = OmegaConf.create({"model": {"hidden": 3}})
    OmegaConf.set_struct(config, True)
    with pytest.raises(OmegaConfBaseException) as caught:
        config.model.hiden = 4
    expected = "model.hiden: unknown key; did you mean hidden? expected one of hidden"
    assert said(caught.value) == expected


def test_anything_else_is_said_on_one_line():
    assert said(ValueError("two\n  lines")) == "two lines"


def test_a_key_unlike_all_others_gets_no_hint():
    assert unknown("zzz", "", ["seed"]) == "zzz: unknown key; expected one of seed"
    assert unknown("zzz", "a.b", []) == "a.b.zzz: unknown key; expected one of none"


def test_what_was_wanted_is_named_in_plain_words():
    assert wanted(refusal("fast")) == "a number"
    assert wanted(refusal(None)) == "a value, not null"
