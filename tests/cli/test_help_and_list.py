import re

import pytest

from fedmia import config


def test_list_names_the_rows_where_they_are_not_named_like_the_option(fedmia):
    words = " ".join(fedmia("list", "attack").out.split())
    assert "both variants. rows: fedmia_i, fedmia_ii attack=" in words
    assert "a validation user. rows: layer_cosine, layer_grad_diff attack=" in words
    chosen = config.compose(["attack=all"]).attack
    for option in config.options("attack"):
        text = (config.CONF / "attack" / f"{option}.yaml").read_text()
        rows = re.findall(r"^(\w+):", text, re.MULTILINE)
        assert set(rows) <= set(chosen)
        _, _, rest = words.partition(f"attack={option} ")
        said = rest.partition(" attack=")[0]
        assert said.endswith(f"rows: {', '.join(rows)}") == (rows != [option])


def test_list_names_the_rows_of_a_plug_in_and_of_no_other_group(fedmia, tmp_path):
    (tmp_path / "attack").mkdir()
    text = "# Mine.\ndefaults: [yeom_loss]\nmy_row:\n  _target_: a.Mine\n"
    (tmp_path / "attack" / "mine.yaml").write_text(text)
    words = " ".join(fedmia("list", "attack", "--config-dir", tmp_path).out.split())
    assert "attack=mine Mine. rows: my_row attack=" in words
    assert "rows:" not in fedmia("list", "dataset").out


@pytest.mark.parametrize("verb", ["run", "plan", "attack", "report", "list"])
def test_every_example_of_the_help_has_a_line_of_its_own(fedmia, verb):
    lines = [line.strip() for line in fedmia(verb, "--help").out.splitlines()]
    examples = [line for line in lines if line.startswith("fedmia ")]
    assert len(examples) >= 2
    assert not any(" fedmia " in line for line in examples)


@pytest.mark.parametrize(("verb", "argument"), [("report", "DIR is a"), ("list", "GROUP is a")])
def test_the_help_explains_arguments(fedmia, verb, argument):
    assert argument in fedmia(verb, "--help").out
