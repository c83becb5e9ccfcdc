import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmia.report.compare import compare
from fedmia.report.lines import differing, flatten, relevant
from fedmia.report.pooling import Pooled
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


def test_a_part_that_repeats_the_seed_is_in_the_same_row_and_one_with_its_own_is_not(run) -> None:
    repeated = [run(k, 0.6, config__client={"keys": {"seed": k}}) for k in (0, 1)]
    (row,) = compare(repeated).rows
    assert row.seeds == (0, 1)

    own = [run(k, 0.6, config__client={"keys": {"seed": 7 + k}}) for k in (0, 1)]
    assert len(compare(own).rows) == 2


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


@pytest.fixture
def kept(tmp_path):
    """Return a maker of run directories with scores whose members lie ``shift`` higher."""

    def make(name: str, seed: int, shift: float, attack: str = "yeom_loss") -> Path:
        rng = np.random.default_rng(seed)
        owner = np.append(np.repeat([0, 1], 20), np.full(100, -1))
        scores = rng.normal(size=(2, 140)) + shift * (owner == np.arange(2)[:, None])
        folder = tmp_path / f"{name}{seed}"
        folder.mkdir()
        labels = np.zeros(140, dtype=np.int64)
        np.savez(folder / "scores.npz", owner=owner, labels=labels, **{f"score/{attack}": scores})
        return folder

    return make


def test_scores_that_were_kept_pool_seeds_and_records(run, kept) -> None:
    runs = [run(s, 0.7) for s in range(3)]
    folders = [kept("a", s, 1.0) for s in range(3)]
    (row,) = compare(runs, folders).rows
    assert row.auc is not None
    assert row.auc.kind == "bootstrap"
    assert row.auc.low < row.auc.mean < row.auc.high
    # without the scores of one seed, three equal values have no spread
    (folders[1] / "scores.npz").unlink()
    (row,) = compare(runs, folders).rows
    assert row.auc == Pooled(*[pytest.approx(0.7)] * 3, "t")


def test_a_defence_is_compared_with_the_first_configuration_on_its_seeds(run, kept) -> None:
    dp = {"_target_": "strategies.dp.Dp"}
    runs = [run(s, 0.7) for s in range(4)] + [run(s, 0.6, config__strategy=dp) for s in range(3)]
    folders = [kept("a", s, 1.5) for s in range(4)] + [kept("b", s, 0.5) for s in range(3)]
    comparison = compare(runs, folders)
    (found,) = comparison.differences
    assert (found.settings, found.seeds) == (("Dp",), (0, 1, 2))
    assert found.auc.kind == "bootstrap"
    # Phi(1.5/sqrt 2) = .856, Phi(.5/sqrt 2) = .638
    assert found.auc.mean == pytest.approx(0.638 - 0.856, abs=0.04)
    assert found.auc.high < 0
    assert found.tpr is not None
    assert found.tpr.high <= 0 or found.tpr.low < found.tpr.mean < found.tpr.high
    assert compare(runs, folders) == comparison


def test_differences_without_scores_are_paired_by_hand(run) -> None:
    dp = {"_target_": "strategies.dp.Dp"}
    runs = [run(s, auc) for s, auc in enumerate([0.7, 0.8, 0.9])]
    runs += [run(s, auc, config__strategy=dp) for s, auc in enumerate([0.6, 0.7, 0.7])]
    (found,) = compare(runs).differences
    # differences -.1, -.1, -.2: mean -.1333, s = .057735, t(.975, 2) = 4.302653
    assert found.auc.kind == "t"
    assert found.auc.mean == pytest.approx(-0.4 / 3)
    half = 4.302653 * 0.057735 / math.sqrt(3)
    assert found.auc.low == pytest.approx(-0.4 / 3 - half, abs=1e-6)
    assert found.auc.high == pytest.approx(-0.4 / 3 + half, abs=1e-6)
    assert found.tpr is not None
    assert found.tpr.mean == 0


def test_other_records_are_no_pair(run) -> None:
    dp = {"_target_": "strategies.dp.Dp"}
    first = run(0, 0.7)
    other = run(0, 0.6, config__strategy=dp, candidates__sha256="cd")
    assert compare([first, other]).differences == ()
    unresolved = {"0.1": 0.4, "0.01": None}
    dash = run(0, 0.6, config__strategy=dp, attacks__0__tpr_at_fpr=unresolved)
    (found,) = compare([first, dash]).differences
    assert found.auc.mean == pytest.approx(-0.1)
    assert found.tpr is None


@pytest.fixture
def sweep(changed):
    """Return a maker of a run of two attacks that have a setting ``mode`` each."""
    one = changed()["attacks"][0]

    def make(seed: int, strategy: str, lira: str = "online", rmia: str = "offline") -> Result:
        settings = {
            "lira": {"_target_": "a.LiRA", "mode": lira, "lr": 0.1},
            "rmia": {"_target_": "a.RMIA", "mode": rmia, "gamma": 1.0},
        }
        return changed(
            {
                "seed": seed,
                "config.seed": seed,
                "config.strategy": {"_target_": f"s.{strategy}"},
                "config.attack": settings,
                "attacks": [one | {"name": name} for name in settings],
            }
        )

    return make


def test_every_attack_is_compared_with_itself_and_its_settings_are_no_columns(sweep) -> None:
    runs = [sweep(seed, strategy) for strategy in ("FedAvg", "Dp") for seed in range(3)]
    comparison = compare(runs)
    assert comparison.settings == ("strategy",)
    assert [(row.settings, row.attack, row.seeds) for row in comparison.rows] == [
        (("FedAvg",), "lira", (0, 1, 2)),
        (("FedAvg",), "rmia", (0, 1, 2)),
        (("Dp",), "lira", (0, 1, 2)),
        (("Dp",), "rmia", (0, 1, 2)),
    ]
    assert [(d.settings, d.first, d.attack, d.seeds) for d in comparison.differences] == [
        (("Dp",), ("FedAvg",), "lira", (0, 1, 2)),
        (("Dp",), ("FedAvg",), "rmia", (0, 1, 2)),
    ]


def test_an_attack_with_two_settings_is_compared_under_the_same_one(sweep) -> None:
    runs = [
        sweep(seed, strategy, lira)
        for strategy in ("FedAvg", "Dp")
        for lira in ("online", "offline")
        for seed in range(3)
    ]
    comparison = compare(runs)
    assert comparison.settings == ("strategy", "attack.mode")
    assert len(comparison.rows) == 6
    assert [(d.attack, d.settings, d.first) for d in comparison.differences] == [
        ("lira", ("FedAvg", "offline"), ("FedAvg", "online")),
        ("lira", ("Dp", "online"), ("FedAvg", "online")),
        ("lira", ("Dp", "offline"), ("FedAvg", "offline")),
        ("rmia", ("Dp", "offline"), ("FedAvg", "offline")),
    ]


def test_a_setting_of_an_attack_that_follows_the_run_is_shown_once(sweep) -> None:
    runs = [sweep(0, "FedAvg"), sweep(0, "FedAvg")]
    runs[1]["config"]["train"]["lr"] = runs[1]["config"]["attack"]["lira"]["lr"] = 0.2
    comparison = compare(runs)
    assert comparison.settings == ("train.lr",)
    assert [row.settings for row in comparison.rows] == [("0.1",), ("0.1",), ("0.2",), ("0.2",)]
    assert [(d.attack, d.first) for d in comparison.differences] == [
        ("lira", ("0.1",)),
        ("rmia", ("0.1",)),
    ]


def test_the_order_of_keys_and_the_vantage_are_no_settings(sweep) -> None:
    runs = [sweep(seed, "FedAvg") for seed in range(2)]
    runs[1]["config"] = dict(reversed(runs[1]["config"].items()))
    assert len(compare(runs).rows) == 2
    for run, vantage in zip(runs, ("server", "wire"), strict=True):
        run["config"]["observer"] = {"vantage": vantage}
        for outcome in run["attacks"]:
            outcome["vantage"] = vantage
    comparison = compare(runs)
    assert comparison.settings == ()
    assert [row.vantage for row in comparison.rows] == ["server", "server", "wire", "wire"]
    assert comparison.differences == ()
