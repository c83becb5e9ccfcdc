import itertools
import math
from typing import Any

import pytest

from fedmia.report.compare import Pooled, compare, differing, flatten, pool, relevant
from fedmia.results import Result


@pytest.fixture
def run(changed):
    """Return a maker of runs with one attack and a creation time that grows."""
    minutes = itertools.count()
    one = changed()["attacks"][:1]

    def make(seed: int, auc: float, **changes: Any) -> Result:
        paths = {key.replace("__", "."): value for key, value in changes.items()}
        return changed(
            {
                "seed": seed,
                "config.seed": seed,
                "created": f"2026-01-01T00:{next(minutes):02d}:00Z",
                "attacks": one,
                "attacks.0.auc": auc,
                "attacks.0.auc_ci": [max(0.0, auc - 0.1), min(1.0, auc + 0.1)],
                **paths,
            }
        )

    return make


def test_one_seed_keeps_its_own_interval() -> None:
    assert pool([0.8], [0.7, 0.9]) == Pooled(0.8, 0.7, 0.9, "run")


def test_two_seeds_show_the_smaller_and_the_larger() -> None:
    assert pool([0.8, 0.6], [0.0, 1.0]) == Pooled(pytest.approx(0.7), 0.6, 0.8, "range")


def test_three_seeds_show_a_t_interval_worked_out_by_hand() -> None:
    # mean .7, s = .1, s/sqrt(3) = .057735, t(.975, 2) = 4.302653
    found = pool([0.6, 0.7, 0.8], [0.0, 1.0])
    assert found.kind == "t"
    assert found.mean == pytest.approx(0.7)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.0577350, rel=1e-5)
    assert found.mean - found.low == pytest.approx(4.302653 * 0.0577350, rel=1e-5)


def test_a_t_interval_stays_within_what_an_auc_can_be() -> None:
    assert pool([0.99, 1.0, 0.9], [0, 1]).high == 1.0
    assert pool([0.7, 0.7, 0.7], [0, 1]) == Pooled(
        pytest.approx(0.7), pytest.approx(0.7), pytest.approx(0.7), "t"
    )


def test_runs_that_differ_in_the_seed_alone_are_one_row(run) -> None:
    comparison = compare([run(0, 0.6), run(1, 0.7), run(2, 0.8)])
    assert comparison.settings == ()
    (row,) = comparison.rows
    assert row.seeds == (0, 1, 2)
    assert row.auc is not None
    assert row.auc.mean == pytest.approx(0.7)
    assert row.test_accuracy == pytest.approx(0.712)
    assert row.tpr == pytest.approx(0.123)
    assert row.blind_auc == pytest.approx(0.507)
    assert not row.confounded


def test_where_and_on_what_a_run_ran_is_no_difference(run) -> None:
    other = run(1, 0.7, config__pool="serial", config__output_dir="elsewhere")
    assert len(compare([run(0, 0.6), other]).rows) == 1


def test_the_same_seed_twice_is_one_seed_and_the_latest_run_counts(run) -> None:
    early, late = run(0, 0.6), run(0, 0.9)
    for order in ([early, late], [late, early]):
        (row,) = compare(order).rows
        assert row.seeds == (0,)
        assert row.auc is not None
        assert (row.auc.mean, row.auc.kind) == (0.9, "run")


def test_keys_that_differ_become_columns_and_nothing_else_does(run) -> None:
    defended = {"_target_": "strategies.dp.DpCentral", "noise": 1.0}
    comparison = compare(
        [
            run(0, 0.8),
            run(0, 0.7, config__train={"lr": 0.2, "local_epochs": 1}),
            run(1, 0.6, config__strategy=defended),
            run(1, 0.9),
        ]
    )
    assert comparison.settings == ("strategy", "train.lr")
    assert [(row.settings, row.seeds) for row in comparison.rows] == [
        (("FedAvg", "0.1"), (0, 1)),
        (("FedAvg", "0.2"), (0,)),
        (("DpCentral", "0.1"), (1,)),
    ]


def test_a_key_that_only_one_side_has_is_shown_when_nothing_else_tells_them_apart() -> None:
    with_it, without = {"a": "1", "extra": "x"}, {"a": "1"}
    assert differing([with_it, without]) == ("extra",)
    # Here the class tells them apart, and its own setting would repeat it.
    named = [{"s": "Dp", "s.noise": "1"}, {"s": "FedAvg"}]
    assert differing(named) == ("s",)
    assert differing([with_it]) == ()


def test_an_attack_depends_on_its_own_settings_and_not_on_its_neighbours() -> None:
    config = {"seed": 1, "attack": {"a": {"k": 1}, "b": {"k": 2}}, "lr": 0.1, "pool": "ray"}
    assert relevant(config, "a") == {"attack": {"k": 1}, "lr": 0.1}
    assert relevant({"attack": "all"}, "a") == {"attack": "all"}


def test_nested_settings_become_dotted_keys() -> None:
    config = {
        "lr": 0.1,
        "model": {"_target_": "fedmia.models.mlp.Mlp", "hidden": [8, 4]},
        "mods": [{"_target_": "a.Clip", "norm": 1}],
        "empty": None,
    }
    assert flatten(config) == {
        "lr": "0.1",
        "model": "Mlp",
        "model.hidden": "[8, 4]",
        "mods": "[Clip]",
        "mods.0": "Clip",
        "mods.0.norm": "1",
        "empty": "–",
    }


def test_a_rate_that_one_seed_cannot_resolve_is_not_averaged_over_the_rest(run) -> None:
    blind = {"0.1": 0.4, "0.01": None}
    (row,) = compare([run(0, 0.6), run(1, 0.7, attacks__0__tpr_at_fpr=blind)]).rows
    assert row.tpr is None
    assert row.balanced_accuracy == pytest.approx(0.701)


def test_seeds_without_a_number_are_counted_and_explained(run, changed) -> None:
    failed = {"name": "yeom_loss", "vantage": "server", "status": "failed", "reason": "NaN"}
    mixed = compare([run(0, 0.6), run(1, 0.7, attacks=[failed])])
    (row,) = mixed.rows
    assert (row.seeds, row.missing, row.problems) == ((0,), 1, ("NaN",))
    assert row.auc == Pooled(0.6, pytest.approx(0.5), pytest.approx(0.7), "run")

    (nothing,) = compare([run(1, 0.7, attacks=[failed])]).rows
    assert nothing.auc is None
    assert nothing.seeds == ()
    assert nothing.problems == ("NaN",)


def test_one_confounded_seed_marks_the_row(run) -> None:
    off = run(1, 0.7, baselines__0__auc=0.6, baselines__0__auc_ci=[0.55, 0.65])
    (row,) = compare([run(0, 0.6), off]).rows
    assert row.confounded
    assert row.blind_auc == pytest.approx(math.fsum([0.507, 0.6]) / 2)


def test_the_same_attack_from_two_vantages_is_two_rows(run) -> None:
    rows = compare([run(0, 0.6), run(0, 0.7, attacks__0__vantage="wire")]).rows
    assert [row.vantage for row in rows] == ["server", "wire"]


def test_no_runs_are_no_rows() -> None:
    assert compare([]).rows == ()
