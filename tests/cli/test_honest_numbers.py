"""Where a number would mislead, it is withheld, refused, or comes from the right settings."""

import json

from fedmia import results


def read(folder):
    return results.read(folder / "result.json")


def test_no_epsilon_is_claimed_where_members_can_be_told_without_training(run):
    skewed = ["partition=dirichlet", "partition.samples_per_client=10", "partition.alpha=0.1"]
    ended = run(*skewed, "metrics.null_run=true")
    assert ended.code == 0, ended.err
    result = read(ended.folder)
    (prior,) = (b for b in result["baselines"] if b["name"] == "label_prior")
    assert prior["auc_ci"][0] > 0.5
    assert result["privacy"]["epsilon_lower_bound"] is None
    assert any("label_prior can tell members without training" in n for n in result["notes"])


def test_an_epsilon_is_given_where_the_baselines_are_at_chance(finished):
    assert read(finished.folder)["privacy"]["epsilon_lower_bound"] is not None


def test_a_participants_run_cannot_be_attacked_as_another_participant(run, fedmia):
    recorded = run("observer.vantage=participant", "observer.participant=0")
    assert recorded.code == 0, recorded.err
    ended = fedmia("attack", recorded.folder, "observer.participant=2")
    assert ended.code == 2
    assert ended.err.startswith("error: observer.participant=2: expected the client that recorded")
    assert fedmia("attack", recorded.folder).code == 0


def test_a_run_directory_is_never_used_twice(run, tmp_path):
    first = run(f"hydra.run.dir={tmp_path / 'fixed'}")
    assert first.code == 0, first.err
    before = (tmp_path / "fixed" / "split.npz").read_bytes()
    second = run(f"hydra.run.dir={tmp_path / 'fixed'}", "seed=1")
    assert second.code == 2
    assert "expected a new run directory, it holds a transcript" in second.err
    assert (tmp_path / "fixed" / "split.npz").read_bytes() == before


def test_an_attack_again_starts_from_the_runs_own_settings(run, fedmia):
    recorded = run("attack=fedmia", "attack.fedmia_i.measurement=logit_gap")
    ended = fedmia("attack", recorded.folder, "metrics.confidence=0.9")
    assert ended.code == 0, ended.err
    before, after = read(recorded.folder), read(ended.folder)
    assert after["config"]["attack"] == before["config"]["attack"]
    assert after["config"]["metrics"] == before["config"]["metrics"] | {"confidence": 0.9}
    assert [a["auc"] for a in after["attacks"]] == [a["auc"] for a in before["attacks"]]


def test_nodes_that_the_truth_does_not_know_are_named(run, fedmia, tmp_path):
    recorded = run()
    nodes = json.loads((recorded.folder / "nodes.json").read_text())
    nodes.pop(next(iter(nodes)))
    (recorded.folder / "nodes.json").write_text(json.dumps(nodes))
    ended = fedmia("attack", recorded.folder)
    assert ended.code == 2
    assert "expected nodes.json to know node" in ended.err


def test_a_round_in_which_all_are_away_changes_nothing_and_the_run_goes_on(run):
    ended = run("client.dropout=0.7", "num_rounds=8")
    result = read(ended.folder)
    away = {r: sum(f["round"] == r for f in result["faults"]) for r in range(1, 9)}
    assert 4 in away.values(), "this seed was chosen because some round is empty"
    assert ended.code == 0, result["reason"]
    accuracy = {p["round"]: p["test_accuracy"] for p in result["utility"]["per_round"]}
    for number in (r for r, count in away.items() if count == 4):
        assert accuracy[number] == accuracy[number - 1]
