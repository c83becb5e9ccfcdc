from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from torch import nn

from fedmia.observe import SPENT
from fedmia.records import Examples
from fedmia.shadows import ShadowTraining
from fedmia.shadows.simulation import FIRST_CLIENT, Simulation, context_of
from fedmia.signals.lenses import Signs
from fedmia.training import LocalSGD
from fedmia.vantages import Server


def records(seed, n):
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(n, 6)).astype(np.float32), np.arange(n) % 3)


def shadows(folder, *defenses, **changes):
    torch.manual_seed(0)
    settings = {
        "model": nn.Linear(6, 3),
        "trainer": LocalSGD(local_epochs=2, lr=0.2),
        "auxiliary": records(0, 60),
        "candidates": records(1, 30),
        "shard_sizes": [8, 6],
        "num_rounds": 3,
        "num_models": 4,
        "num_federations": 2,
        "vantage": Server(),
        "seed": 3,
        "folder": folder,
        "simulation": Simulation(defenses) if defenses else None,
    }
    return ShadowTraining(**(settings | changes))


@dataclass(frozen=True)
class Slower:
    """Trains with less learning rate, and notes in the context how often it was asked."""

    factor: float

    def trains(self, trainer, context):
        times = context.state.config_records.get("times")
        count = int(times["count"]) + 1 if times else 1
        context.state["times"] = ConfigRecord({"count": count})
        return replace(trainer, lr=trainer.lr * self.factor**count)


@dataclass(frozen=True)
class Halving:
    def perturbed(self, update, rng):
        return {name: values / 2 for name, values in update.items()}


@dataclass(frozen=True)
class Largest:
    """Keeps what is larger than a bound."""

    bound: float

    def perturbed(self, update, rng):
        return {k: np.where(np.abs(v) > self.bound, v, 0) for k, v in update.items()}


@dataclass(frozen=True)
class Noisy:
    def perturbed(self, update, rng):
        return {k: rng.normal(size=v.shape).astype(np.float32) for k, v in update.items()}


class Spent:
    """Lets each client train once."""

    def trains(self, trainer, context):
        return _Once(trainer, context)


@dataclass(frozen=True)
class _Once:
    trainer: LocalSGD
    context: object

    def fit(self, model, x, y, rng):
        if "done" in self.context.state:
            raise RuntimeError(f"{SPENT}: no more")
        self.context.state["done"] = ConfigRecord({})
        return self.trainer.fit(model, x, y, rng)


class Broken:
    def trains(self, trainer, context):
        return self

    def fit(self, model, x, y, rng):
        raise RuntimeError("broken")


def deltas(training):
    return [
        {k: u.delta[k] for k in u.delta}
        for federation in training.transcripts()
        for seen in federation.view.transcript
        for u in seen.updates
    ]


def test_the_last_defence_acts_on_the_update_first():
    update = {"w": np.array([1.0, 3.0])}
    rng = np.random.default_rng(0)
    outer_halves = Simulation((Halving(), Largest(2))).sent(update, rng)
    inner_halves = Simulation((Largest(2), Halving())).sent(update, rng)
    assert outer_halves["w"].tolist() == [0.0, 1.5]
    assert inner_halves["w"].tolist() == [0.0, 0.0]


def test_shadow_clients_send_what_the_defence_makes_of_their_updates(tmp_path):
    plain, defended = shadows(tmp_path), shadows(tmp_path, Largest(0.3))
    sizes = np.abs([np.concatenate([v.ravel() for v in d.values()]) for d in deltas(defended)])
    assert ((sizes == 0) | (sizes > 0.3 - 1e-6)).all()
    assert 0.2 < (sizes == 0).mean() < 1
    first = [training.transcripts()[0].view.transcript for training in (plain, defended)]
    # round 1 starts alike; what was averaged then is what was sent
    sent = first[1][0].updates
    share = np.array([8, 6]) / 14
    for name, value in first[1][1].params.items():
        moved = sum(s * u.delta[name] for s, u in zip(share, sent, strict=True))
        np.testing.assert_allclose(value, first[1][0].params[name] + moved, atol=1e-6)
        kept = np.where(np.abs(first[0][0].updates[0].delta[name]) > 0.3,
                        first[0][0].updates[0].delta[name], 0)  # fmt: skip
        np.testing.assert_allclose(sent[0].delta[name], kept, atol=1e-6)


def test_shadow_clients_train_as_the_defence_has_them_and_keep_their_state(tmp_path):
    # the rate is lr · ½, lr · ¼, lr · ⅛: the state of a client outlives its rounds
    training = shadows(tmp_path, Slower(0.5), num_rounds=1)
    plain = shadows(tmp_path, num_rounds=1)
    slow, fast = (np.abs(deltas(t)[0]["weight"]).max() for t in (training, plain))
    assert 0.3 * fast < slow < 0.7 * fast
    stopped = deltas(shadows(tmp_path, Slower(1e-12)))
    assert max(np.abs(v).max() for delta in stopped for v in delta.values()) < 1e-9
    sizes = [np.abs(d["weight"]).max() for d in deltas(shadows(tmp_path, Slower(0.3)))[::2]]
    assert sizes[1] < 0.5 * sizes[0]
    assert sizes[2] < 0.5 * sizes[1]


def test_reference_models_are_what_defended_clients_would_have_sent(tmp_path):
    start = {k: v.numpy() for k, v in nn.Linear(6, 3).state_dict().items()}
    x = records(5, 4)
    same = shadows(tmp_path, Slower(1e-12)).clients(start, 8).logits(x)
    expected = x.x @ start["weight"].T + start["bias"]
    np.testing.assert_allclose(same, np.broadcast_to(expected, same.shape), atol=1e-5)
    half = shadows(tmp_path, Halving()).clients(start, 8).logits(x)
    whole = shadows(tmp_path).clients(start, 8).logits(x)
    np.testing.assert_allclose(half - expected, (whole - expected) / 2, atol=1e-5)


def test_random_choices_are_the_same_at_every_run_and_others_for_every_client(tmp_path):
    one, two = (deltas(shadows(tmp_path / name, Noisy())) for name in "ab")
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a["weight"], b["weight"])
    assert len({delta["bias"].tobytes() for delta in one}) == len(one)


def test_what_was_trained_with_and_without_defences_is_kept_apart(tmp_path):
    training = shadows(tmp_path)
    plain = training.federations().logits(records(5, 4))
    defended = shadows(tmp_path, Slower(1e-12)).federations().logits(records(5, 4))
    assert not np.allclose(plain, defended)
    again = shadows(tmp_path)
    assert np.array_equal(again.federations().logits(records(5, 4)), plain)


def test_a_client_whose_budget_is_spent_stays_as_it_is(tmp_path):
    found = deltas(shadows(tmp_path, Spent()))
    moved = [any(v.any() for v in delta.values()) for delta in found]
    assert moved == [True, True, False, False, False, False] * 2


def test_any_other_failure_of_a_defence_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        shadows(tmp_path, Broken()).federations()


def test_shadow_clients_have_numbers_that_no_real_client_has():
    context = context_of(3, 10)
    assert context.node_config["partition-id"] == FIRST_CLIENT + 3
    assert not context.state


def test_shadow_federations_are_looked_at_through_the_same_lens(tmp_path):
    plain, informed = shadows(tmp_path), shadows(tmp_path, lens=Signs())
    mine, theirs = (t.transcripts()[0].view.signals for t in (informed, plain))
    assert np.array_equal(mine.cosine, theirs.through(Signs()).cosine, equal_nan=True)
    assert not np.allclose(mine.cosine, theirs.cosine)
