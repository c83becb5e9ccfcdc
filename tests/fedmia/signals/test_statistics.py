import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.records import Capability, Examples, Observation, Update
from fedmia.signals import Signals, sweeps
from fedmia.transcript import Transcript, TranscriptWriter
from fedmia.vantages import Aggregate, MaskedServer, Participant

NAMES = (
    "loss_global",
    "logit_gap_global",
    "entropy_global",
    "mentr_global",
    "last_layer_norm_global",
    "grad_norm",
    "loss_local",
    "logit_gap_local",
    "entropy_local",
    "mentr_local",
    "last_layer_norm_local",
    "grad_norm_local",
    "inner",
    "cosine",
    "update_norm",
    "aggregate_inner",
    "aggregate_cosine",
    "parameter_norm",
    "parameter_inner",
    "parameter_update_norm",
)
OF_SUMS = ("aggregate_inner", "aggregate_cosine")
GLOBAL = tuple(name for name in NAMES if name.endswith("_global") or name == "grad_norm")
CLIENT_AND_CANDIDATE = (
    *(name for name in NAMES if name.endswith("_local")),
    "inner",
    "cosine",
)


def state(model):
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def moved(rng, params, scale=0.1):
    return {
        k: (rng.normal(size=v.shape) * scale).astype(v.dtype) if v.dtype.kind == "f" else v * 0 + 1
        for k, v in params.items()
    }


def write(path, rounds, final=None):
    """Write rounds given as (round, params, {node: delta})."""
    writer = TranscriptWriter(path, "server", list(Capability))
    for number, params, deltas in rounds:
        updates = tuple(Update(node, 20, delta) for node, delta in deltas.items())
        writer.append(Observation(number, params, tuple(deltas), updates))
    if final is not None:
        writer.finish(final)
    return Transcript(path)


def examples(rng, n, shape, classes):
    x = rng.normal(size=(n, *shape)).astype(np.float32)
    return Examples(x, rng.integers(0, classes, n))


def federation(path, build=lambda: MLP(hidden=[5])((6,), 3), shape=(6,), seed=0):
    """Write two rounds of three nodes, one of which is absent in each, and a final model."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    first, second, last = (state(build()) for _ in range(3))
    rounds = [
        (1, first, {12: moved(rng, first), 10: moved(rng, first)}),
        (2, second, {12: moved(rng, second), 11: moved(rng, second)}),
    ]
    return write(path, rounds, last), build(), examples(rng, 7, shape, 3)


@pytest.fixture
def recorded(tmp_path):
    return federation(tmp_path / "transcript")


def by_hand(tmp_path, delta):
    """Return the signals of x=(3, 0), y=0 under a zero linear model of two classes."""
    zero = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    transcript = write(tmp_path / "hand", [(1, zero, {5: delta})])
    candidate = Examples(np.array([[3, 0]], np.float32), np.array([0]))
    return Signals(transcript, nn.Linear(2, 2), candidate, None)


def test_one_round_worked_out_by_hand(tmp_path):
    # z = (0, 0), p = (1/2, 1/2), g = (-1/2, 1/2) ⊗ (3, 0, 1): ‖g‖² = 1/2 · 10 = 5. The update
    # raises z_0 by x_0, so u = -Δ = -1 at W[0, 0], where g is -3/2: ⟨g, u⟩ = 3/2.
    delta = {"weight": np.array([[1, 0], [0, 0]], np.float32), "bias": np.zeros(2, np.float32)}
    signals = by_hand(tmp_path, delta)
    assert signals.loss_global.tolist() == [[pytest.approx(math.log(2))]]
    assert signals.logit_gap_global.tolist() == [[0.0]]
    assert signals.loss_local.tolist() == [[[pytest.approx(math.log1p(math.exp(-3)))]]]
    assert signals.logit_gap_local.tolist() == [[[3.0]]]
    assert signals.grad_norm.tolist() == [[pytest.approx(5**0.5)]]
    assert signals.inner.tolist() == [[[pytest.approx(1.5)]]]
    assert signals.cosine.tolist() == [[[pytest.approx(1.5 / 5**0.5)]]]
    assert signals.update_norm.tolist() == [[1.0]]
    # by parameter (weight, bias), and under w + Δ, where z = (3, 0): p_1 = 1/(1 + e³).
    assert signals.parameter_norm.tolist() == [
        [[pytest.approx(4.5**0.5)], [pytest.approx(0.5**0.5)]]
    ]
    assert signals.parameter_inner.tolist() == [[[[pytest.approx(1.5)], [0.0]]]]
    assert signals.parameter_update_norm.tolist() == [[[1.0, 0.0]]]
    q = 1 / (1 + math.exp(3))
    assert signals.last_layer_norm_local.tolist() == [[[pytest.approx(q * 20**0.5)]]]
    assert signals.grad_norm_local.tolist() == [[[pytest.approx(q * 20**0.5)]]]
    assert signals.entropy_global.tolist() == [[pytest.approx(math.log(2))]]
    assert signals.mentr_global.tolist() == [[pytest.approx(math.log(2))]]


def test_a_step_along_the_candidates_own_gradient_has_cosine_one(tmp_path):
    delta = {
        "weight": np.array([[1.5, 0], [-1.5, 0]], np.float32),
        "bias": np.array([0.5, -0.5], np.float32),
    }
    for size in (1, 1e-30):  # an update does not vanish by being small
        signals = by_hand(tmp_path / str(size), {k: v * np.float32(size) for k, v in delta.items()})
        assert signals.cosine.item() == pytest.approx(1)


def test_a_round_along_the_candidates_own_gradient_has_the_cosine_of_a_lone_client(tmp_path):
    # As above, but seen as the step from one global model to the next: u = -1 at W[0, 0].
    delta = {"weight": np.array([[1, 0], [0, 0]], np.float32), "bias": np.zeros(2, np.float32)}
    zero = {k: np.zeros_like(v) for k, v in delta.items()}
    rounds = [(1, zero, {}), (2, delta, {}), (4, zero, {})]
    candidate = Examples(np.array([[3, 0]], np.float32), np.array([0]))
    signals = Signals(write(tmp_path / "sums", rounds), nn.Linear(2, 2), candidate, None)
    assert signals.aggregate_inner[0].item() == pytest.approx(1.5)
    assert signals.aggregate_cosine[0].item() == pytest.approx(1.5 / 5**0.5)
    # round 3 is missing, and what came of round 4 was not seen
    assert np.isnan(signals.aggregate_cosine[1:]).all()
    assert np.isnan(signals.aggregate_inner[1:]).all()


def test_a_round_that_moved_nothing_has_cosine_zero(tmp_path):
    zero = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    candidate = Examples(np.array([[3, 0]], np.float32), np.array([0]))
    transcript = write(tmp_path / "still", [(1, zero, {})], zero)
    signals = Signals(transcript, nn.Linear(2, 2), candidate, tmp_path / "cache")
    assert signals.aggregate_cosine.tolist() == signals.aggregate_inner.tolist() == [[0.0]]
    again = Signals(transcript, nn.Linear(2, 2), candidate, tmp_path / "cache")
    assert again.aggregate_cosine.tolist() == [[0.0]]


def test_the_sum_is_seen_where_no_update_is(recorded):
    transcript, model, candidates = recorded
    whole = Signals(transcript, model, candidates, None)
    for vantage in (Aggregate(), MaskedServer("secagg_plus")):
        seen = transcript.through(vantage.name, vantage.shows, vantage.view, vantage.hides_updates)
        signals = Signals(seen, model, candidates, None)
        assert signals.nodes == ()
        assert signals.cosine.shape == (2, 0, 7)
        np.testing.assert_allclose(signals.aggregate_cosine, whole.aggregate_cosine, atol=1e-6)
        early = signals.until(1)
        assert early.rounds_global == (1, 2), "what came of a round is known when it is over"
        np.testing.assert_array_equal(early.aggregate_cosine, signals.aggregate_cosine[:1])


def test_a_participant_knows_a_sum_once_it_is_sent_the_next_model(tmp_path):
    transcript, model, candidates = federation(tmp_path / "transcript")
    watched = transcript.through("participant", Participant.shows, Participant(12).view)
    signals, whole = (Signals(t, model, candidates, None) for t in (watched, transcript))
    for name in OF_SUMS:
        values = getattr(signals, name)
        np.testing.assert_allclose(values[0], getattr(whole, name)[0], atol=1e-6)
        assert np.isnan(values[1]).all(), "it has not the final model"
        assert np.isnan(getattr(signals.until(1), name)).all()
    alone = transcript.through("participant", Participant.shows, Participant(10).view)
    assert np.isnan(Signals(alone, model, candidates, None).aggregate_cosine).all()


def test_an_update_of_zero_has_cosine_zero(tmp_path):
    signals = by_hand(
        tmp_path, {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    )
    assert signals.cosine.item() == signals.inner.item() == signals.update_norm.item() == 0
    assert signals.loss_local.item() == signals.loss_global.item()


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: MLP(hidden=[5])((6,), 3), (6,)),
        (lambda: CNN(channels=[2, 3], hidden=5)((1, 8, 8), 3), (1, 8, 8)),
    ],
    ids=["mlp", "cnn"],
)
def test_every_array_agrees_with_loops_over_rounds_clients_and_candidates(tmp_path, build, shape):
    transcript, model, candidates = federation(tmp_path / "transcript", build, shape)
    signals = Signals(transcript, model, candidates, None)
    assert signals.nodes == (10, 11, 12)
    assert signals.rounds == (1, 2)
    assert signals.rounds_global == (1, 2, None)
    twin = build().eval()
    parameters = dict(twin.named_parameters())
    assert signals.parameters == tuple(parameters)
    P, last = len(parameters), [k for k in parameters if k.startswith(f"{len(twin) - 1}.")]
    both = ("loss", "entropy", "mentr", "last_layer_norm")
    expected = {f"{name}_global": np.full((3, 7), np.nan) for name in both}
    expected |= {f"{name}_local": np.full((2, 3, 7), np.nan) for name in both}
    expected |= {
        "grad_norm": np.full((3, 7), np.nan),
        "grad_norm_local": np.full((2, 3, 7), np.nan),
        "inner": np.full((2, 3, 7), np.nan),
        "cosine": np.full((2, 3, 7), np.nan),
        "update_norm": np.full((2, 3), np.nan),
        "aggregate_inner": np.full((2, 7), np.nan),
        "aggregate_cosine": np.full((2, 7), np.nan),
        "parameter_norm": np.full((2, P, 7), np.nan),
        "parameter_inner": np.full((2, 3, P, 7), np.nan),
        "parameter_update_norm": np.full((2, 3, P), np.nan),
    }

    def fill(where, at, params, i):
        """Measure candidate i under a model and return its gradient by parameter."""
        twin.load_state_dict({k: torch.tensor(v) for k, v in params.items()})
        x, y = torch.tensor(candidates.x[i : i + 1]), torch.tensor(candidates.y[i : i + 1])
        logits = twin(x)
        loss = nn.functional.cross_entropy(logits, y)
        pieces = torch.autograd.grad(loss, list(parameters.values()))
        g = {k: piece.double().numpy() for k, piece in zip(parameters, pieces, strict=True)}
        p = logits.detach().double().softmax(1).squeeze(0).numpy()
        own, other = p[y.item()], np.delete(p, y.item())
        expected[f"loss_{where}"][at] = loss.item()
        expected[f"entropy_{where}"][at] = -(p * np.log(p)).sum()
        expected[f"mentr_{where}"][at] = (
            -(1 - own) * np.log(own) - (other * np.log(1 - other)).sum()
        )
        expected[f"last_layer_norm_{where}"][at] = norm([g[k] for k in last])
        name = "grad_norm" if where == "global" else "grad_norm_local"
        expected[name][at] = norm(g.values())
        return g

    def norm(arrays):
        return np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays))

    for i in range(7):
        for t, observation in enumerate(transcript):
            g = fill("global", (t, i), observation.params, i)
            following = transcript[1].params if t == 0 else transcript.final
            u = {name: observation.params[name] - following[name] for name in parameters}
            inner = sum((g[name] * u[name]).sum() for name in parameters)
            expected["aggregate_inner"][t, i] = inner
            expected["aggregate_cosine"][t, i] = inner / norm(g.values()) / norm(u.values())
            expected["parameter_norm"][t, :, i] = [norm([part]) for part in g.values()]
            for update in observation.updates:
                k = signals.nodes.index(update.node_id)
                u = {name: -update.delta[name] for name in parameters}
                parts = [(g[name] * u[name]).sum() for name in parameters]
                fill(
                    "local",
                    (t, k, i),
                    {n: v + update.delta[n] for n, v in observation.params.items()},
                    i,
                )
                expected["parameter_inner"][t, k, :, i] = parts
                expected["inner"][t, k, i] = sum(parts)
                expected["cosine"][t, k, i] = sum(parts) / norm(g.values()) / norm(u.values())
                expected["parameter_update_norm"][t, k] = [norm([part]) for part in u.values()]
                expected["update_norm"][t, k] = norm(u.values())
        fill("global", (2, i), transcript.final, i)
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(signals, name), value, rtol=1e-5, atol=2e-6, err_msg=name
        )
    np.testing.assert_allclose(
        np.log1p(np.exp(-signals.logit_gap_local)), signals.loss_local, rtol=1e-12
    )
    assert signals.loss_local.dtype == signals.logit_gap_global.dtype == np.float64
    assert signals.cosine.dtype == np.float32


def test_present_marks_what_was_seen_and_the_rest_is_nan(recorded):
    signals = Signals(*recorded, None)
    assert signals.present.tolist() == [[True, False, True], [False, True, True]]
    for name in CLIENT_AND_CANDIDATE:
        assert (np.isfinite(getattr(signals, name)).all(2) == signals.present).all(), name
    assert (np.isfinite(signals.update_norm) == signals.present).all()
    assert (np.isfinite(signals.parameter_inner).all((2, 3)) == signals.present).all()
    assert (np.isfinite(signals.parameter_update_norm).all(2) == signals.present).all()


def test_until_shows_the_first_rounds_and_the_model_that_came_of_them(recorded):
    signals = Signals(*recorded, None)
    early = signals.until(1)
    assert early.rounds == (1,)
    assert early.rounds_global == (1, 2)
    for name in NAMES:
        rows = 2 if name in GLOBAL else 1
        np.testing.assert_array_equal(getattr(early, name), getattr(signals, name)[:rows])
    np.testing.assert_array_equal(early.logits(-1), signals.logits(1))
    np.testing.assert_array_equal(early.logits(-1, 2), signals.logits(0, 2))
    with pytest.raises(IndexError):
        early.logits(2)
    with pytest.raises(IndexError):
        early.model(1, 2)


def test_who_sees_no_updates_does_not_know_what_came_of_a_round(recorded):
    transcript, model, candidates = recorded
    watched = transcript.through("participant", Participant.shows, lambda seen: seen)
    early = Signals(watched, model, candidates, None).until(1)
    assert early.rounds == early.rounds_global == (1,)
    assert early.loss_global.shape == (1, len(candidates))


def test_what_is_first_asked_of_earlier_rounds_is_not_computed_again_for_all(recorded):
    signals = Signals(*recorded, None)
    early = signals.until(1)
    assert np.shares_memory(early.loss_local, signals.loss_local)
    assert early.seconds == signals.seconds > 0


def test_logits_and_model_are_those_of_the_global_and_the_clients_weights(recorded):
    transcript, _, candidates = recorded
    signals = Signals(*recorded, None)
    x, y = torch.tensor(candidates.x), torch.tensor(candidates.y)
    weights = {
        (0, None): transcript[0].params,
        (1, None): transcript[1].params,
        (2, None): transcript.final,
        (-1, None): transcript.final,
    }
    for t, observation in enumerate(transcript):
        for update in observation.updates:
            moved_there = {k: v + update.delta[k] for k, v in observation.params.items()}
            weights[t, signals.nodes.index(update.node_id)] = moved_there
    for (t, k), expected in weights.items():
        model = signals.model(t, k)
        assert not model.training
        assert all((model.state_dict()[n].numpy() == v).all() for n, v in expected.items())
        logits = signals.logits(t, k)
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits, model(x).detach().numpy())
        loss = nn.functional.cross_entropy(torch.tensor(logits), y, reduction="none")
        rows = signals.loss_global if k is None else signals.loss_local[:, k]
        np.testing.assert_allclose(loss, rows[t], rtol=1e-5)
    assert signals.candidates is candidates


def test_a_client_that_was_away_has_neither_logits_nor_a_model(recorded):
    signals = Signals(*recorded, None)
    for ask in (signals.logits, signals.model):
        with pytest.raises(ValueError, match=r"^client column 1 sent nothing in round 1$"):
            ask(0, 1)
        with pytest.raises(IndexError):
            ask(2, 0)  # no client starts from the final model


def test_what_an_attack_does_to_a_model_changes_no_signal(recorded):
    signals, untouched = Signals(*recorded, None), Signals(*recorded, None)
    model = signals.model(0)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7)
            p.requires_grad_(False)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(signals, name), getattr(untouched, name))
    assert all(p.requires_grad for p in signals.model(0).parameters())


def test_other_records_under_the_same_transcript(recorded, tmp_path, monkeypatch):
    transcript, model, candidates = recorded
    signals = Signals(transcript, model, candidates, tmp_path / "cache")
    few = candidates[[4, 1]]
    other = signals.of(few)
    assert other is signals.of(candidates[[4, 1]])
    assert other.candidates is few
    for name in GLOBAL:
        values = getattr(other, name)
        np.testing.assert_allclose(values, getattr(signals, name)[:, [4, 1]], rtol=1e-5)
    before = signals.seconds
    assert before > other.seconds > 0
    np.testing.assert_allclose(
        signals.until(1).of(few).loss_local, signals.loss_local[:1, :, [4, 1]], rtol=1e-5
    )
    assert other.seconds > 0
    assert signals.seconds > before

    monkeypatch.setattr(sweeps, "load", lambda *_: pytest.fail("computed again"))
    again = Signals(transcript, model, candidates, tmp_path / "cache").of(few)
    np.testing.assert_array_equal(again.loss_local, other.loss_local)


def test_a_model_without_a_linear_layer_at_its_end_is_refused_that_signal_only(tmp_path):
    transcript, model, candidates = federation(
        tmp_path / "transcript", lambda: nn.Sequential(nn.Linear(6, 3), nn.Tanh())
    )
    signals = Signals(transcript, model, candidates, tmp_path / "cache")
    for name in ("last_layer_norm_global", "last_layer_norm_local"):
        with pytest.raises(NotImplementedError, match="logits of Sequential are not the output"):
            getattr(signals, name)
    assert np.isfinite(signals.grad_norm).all()
    assert not list((tmp_path / "cache").rglob("*partial*"))


def test_the_same_inputs_give_the_same_bytes(recorded):
    one, two = Signals(*recorded, None), Signals(*recorded, None)
    for name in NAMES:
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), name


def test_the_model_is_evaluated_without_dropout_and_handed_back_as_it_was(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 3))

    transcript, model, candidates = federation(tmp_path / "transcript", build)
    before = state(model)
    signals = Signals(transcript, model, candidates, None)
    model_of_round = build().eval()
    model_of_round.load_state_dict({k: torch.tensor(v) for k, v in transcript[0].params.items()})
    expected = nn.functional.cross_entropy(
        model_of_round(torch.tensor(candidates.x)), torch.tensor(candidates.y), reduction="none"
    )
    np.testing.assert_allclose(signals.loss_global[0], expected.detach(), rtol=1e-5)
    assert np.isfinite(signals.grad_norm).all()
    assert model.training
    assert all((before[k] == v).all() for k, v in state(model).items())
    assert all(p.grad is None for p in model.parameters())


def broken(path, transcript, at, node, value):
    """Write a transcript again in which one update of one round is not finite."""
    rounds = [(o.round, o.params, {u.node_id: u.delta for u in o.updates}) for o in transcript]
    rounds[at][2][node] = {k: np.full_like(v, value) for k, v in rounds[at][2][node].items()}
    return write(path, rounds, transcript.final)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_update_is_named_by_every_signal_that_it_enters(tmp_path, value):
    transcript, model, candidates = federation(tmp_path / "sound")
    damaged = broken(tmp_path / "broken", transcript, 1, 12, value)
    signals, sound = (Signals(t, model, candidates, None) for t in (damaged, transcript))
    for name in set(NAMES) - set(GLOBAL) - {*OF_SUMS, "parameter_norm"}:
        line = rf"^signal {name} is not finite in round 2, client column 2 \(node 12\)$"
        with pytest.raises(FloatingPointError, match=line):
            getattr(signals, name)
        early = getattr(signals.until(1), name)  # until then nothing is broken
        np.testing.assert_allclose(early, getattr(sound, name)[:1], rtol=1e-6, err_msg=name)
    with pytest.raises(FloatingPointError, match="signal logits_local is not finite in round 2"):
        signals.logits(0, 0)
    for name in (*GLOBAL, *OF_SUMS, "parameter_norm"):
        np.testing.assert_allclose(getattr(signals, name), getattr(sound, name), rtol=1e-6)


def test_what_is_not_finite_is_named_from_the_cache_as_well(tmp_path):
    transcript, model, candidates = federation(tmp_path / "sound")
    damaged = broken(tmp_path / "broken", transcript, 0, 10, np.nan)
    for _ in range(2):
        signals = Signals(damaged, model, candidates, tmp_path / "cache")
        with pytest.raises(FloatingPointError, match=r"round 1, client column 0 \(node 10\)$"):
            _ = signals.loss_local


@pytest.mark.parametrize(
    ("name", "where"), [("loss_global", "round 1"), ("cosine", "round 1, client column 0 .*")]
)
def test_a_broken_candidate_is_not_passed_over(recorded, name, where):
    transcript, model, candidates = recorded
    x = candidates.x.copy()
    x[3, 0] = np.nan
    signals = Signals(transcript, model, dataclasses.replace(candidates, x=x), None)
    with pytest.raises(FloatingPointError, match=f"^signal {name} is not finite in {where}$"):
        getattr(signals, name)


def test_a_final_model_that_overflows_is_named(tmp_path):
    transcript, model, candidates = federation(tmp_path / "sound")
    rounds = [(o.round, o.params, {u.node_id: u.delta for u in o.updates}) for o in transcript]
    huge = {k: np.full_like(v, 3e38) for k, v in transcript.final.items()}
    signals = Signals(write(tmp_path / "huge", rounds, huge), model, candidates, None)
    for name in ("loss_global", "grad_norm"):
        line = f"^signal {name} is not finite in the final model$"
        with pytest.raises(FloatingPointError, match=line):
            getattr(signals, name)
    assert np.isfinite(signals.until(1).loss_global).all()


def test_an_update_too_long_for_inner_products_still_has_a_direction(tmp_path):
    delta = {"weight": np.full((2, 2), 3e38, np.float32), "bias": np.zeros(2, np.float32)}
    delta["weight"][1] *= -1
    signals = by_hand(tmp_path, delta)
    assert signals.cosine.item() == pytest.approx(3 / 20**0.5)
    with pytest.raises(FloatingPointError, match="signal inner is not finite in round 1"):
        _ = signals.inner


def test_a_sum_too_long_for_inner_products_is_named_and_still_has_a_direction(tmp_path):
    zero = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    far = {"weight": np.full((2, 2), 3e38, np.float32), "bias": np.zeros(2, np.float32)}
    far["weight"][1] *= -1
    candidate = Examples(np.array([[3, 0]], np.float32), np.array([0]))
    transcript = write(tmp_path / "long", [(1, zero, {}), (2, zero, {})], far)
    signals = Signals(transcript, nn.Linear(2, 2), candidate, None)
    assert signals.aggregate_cosine[1].item() == pytest.approx(3 / 20**0.5)
    with pytest.raises(FloatingPointError, match=r"^signal aggregate_inner .* in round 2$"):
        _ = signals.aggregate_inner
    assert signals.until(1).aggregate_inner.tolist() == [[0.0]]


def test_very_confident_candidates_keep_their_cosines(tmp_path):
    params = {
        "weight": np.array([[1, 0], [-1, 0]], np.float32),
        "bias": np.array([0, 0], np.float32),
    }
    delta = {"weight": np.array([[1, 0], [0, 0]], np.float32), "bias": np.zeros(2, np.float32)}
    transcript = write(tmp_path / "confident", [(1, params, {5: delta})])
    candidates = Examples(np.array([[20, 0], [25, 0]], np.float32), np.array([0, 0]))
    signals = Signals(transcript, nn.Linear(2, 2), candidates, None)
    # 1 - p_y = e^{-40}, far below what a float32 probability can tell from 0.
    x = np.array([20.0, 25.0])
    np.testing.assert_allclose(signals.loss_global[0], np.exp(-2 * x), rtol=1e-6)
    np.testing.assert_allclose(
        signals.grad_norm[0], np.exp(-2 * x) * np.sqrt(2 * (x**2 + 1)), rtol=1e-5
    )
    np.testing.assert_allclose(signals.cosine[0, 0], x / np.sqrt(2 * (x**2 + 1)), rtol=1e-5)


def test_a_final_model_alone_has_one_row(tmp_path):
    transcript, model, candidates = federation(tmp_path / "transcript")
    only_final = transcript.through("final_model", [], lambda o: o if o.round == 0 else None)
    signals = Signals(only_final, model, candidates, tmp_path / "cache")
    whole = Signals(transcript, model, candidates, None)
    assert signals.rounds_global == (None,)
    for name in GLOBAL:
        np.testing.assert_array_equal(getattr(signals, name), getattr(whole, name)[2:])
    np.testing.assert_array_equal(signals.logits(-1), whole.logits(2))
    assert signals.cosine.shape[0] == signals.loss_local.shape[0] == 0


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: MLP(hidden=[5])((6,), 3), (6,)),
        (lambda: CNN(channels=[2, 3], hidden=5)((1, 8, 8), 3), (1, 8, 8)),
    ],
    ids=["mlp", "cnn"],
)
def test_rounds_that_show_no_updates_still_show_the_global_model(tmp_path, build, shape):
    transcript, model, candidates = federation(tmp_path / "transcript", build, shape)
    blind = transcript.through(
        "participant",
        [Capability.GLOBAL_MODEL],
        lambda o: dataclasses.replace(o, updates=()) if o.round else None,
    )
    signals = Signals(blind, model, candidates, tmp_path / "cache")
    whole = Signals(transcript, model, candidates, None)
    assert signals.rounds_global == (1, 2)
    assert signals.nodes == ()
    for name in (*GLOBAL, "parameter_norm"):
        np.testing.assert_allclose(getattr(signals, name), getattr(whole, name)[:2], rtol=1e-5)
    np.testing.assert_allclose(signals.aggregate_cosine[0], whole.aggregate_cosine[0], atol=1e-6)
    for name in CLIENT_AND_CANDIDATE:
        assert getattr(signals, name).shape == (2, 0, 7)
    assert isinstance(signals.grad_norm, np.memmap)
    again = Signals(blind, model, candidates, tmp_path / "cache")
    np.testing.assert_array_equal(again.grad_norm, signals.grad_norm)
    assert again.cosine.shape == (2, 0, 7)


def test_what_a_partial_update_does_not_name_did_not_move(tmp_path):
    delta = {"bias": np.array([2, 0], np.float32)}
    signals = by_hand(tmp_path, delta)
    assert signals.logit_gap_local.item() == 2.0
    assert signals.update_norm.item() == 2.0
    assert signals.inner.item() == pytest.approx(-0.5 * -2.0)


def test_a_model_of_another_architecture_is_named(recorded):
    transcript, _, candidates = recorded
    other = MLP(hidden=[4])((6,), 3)
    with pytest.raises(ConfigError, match=r"model=Sequential: .* 1\.weight is \(5, 6\) and not"):
        _ = Signals(transcript, other, candidates, None).loss_global


def test_no_candidates_are_refused(recorded):
    transcript, model, candidates = recorded
    with pytest.raises(ValueError, match="no candidates"):
        Signals(transcript, model, candidates[:0], None)


def read_all(signals):
    return {name: np.array(getattr(signals, name)) for name in NAMES}


def test_signals_are_computed_once_and_then_read(recorded, tmp_path, monkeypatch):
    first = Signals(*recorded, tmp_path / "cache")
    values = read_all(first)
    assert first.seconds > 0

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(sweeps, "load", refuse)
    second = Signals(*recorded, tmp_path / "cache")
    for name, value in read_all(second).items():
        np.testing.assert_array_equal(value, values[name])
        assert isinstance(getattr(second, name), np.memmap)


def test_other_inputs_never_read_the_same_cache(tmp_path):
    transcript, model, candidates = federation(tmp_path / "transcript")
    cache = tmp_path / "cache"
    reference = read_all(Signals(transcript, model, candidates, cache))
    relabelled = dataclasses.replace(candidates, y=(candidates.y + 1) % 3)
    other_run = federation(tmp_path / "other", seed=1)[0]
    squashed = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    for inputs in (
        (transcript, model, relabelled),
        (transcript, model, candidates[::-1]),
        (other_run, model, candidates),
        (transcript, squashed, candidates),
    ):
        fresh = read_all(Signals(*inputs, None))
        cached = read_all(Signals(*inputs, cache))
        assert not np.array_equal(fresh["loss_global"], reference["loss_global"])
        for name in NAMES:
            np.testing.assert_array_equal(cached[name], fresh[name])


def test_a_longer_transcript_is_not_answered_from_a_shorter_ones_cache(tmp_path):
    transcript, model, candidates = federation(tmp_path / "transcript")
    half = transcript.through("server", transcript.shows, lambda o: o if o.round == 1 else None)
    cache = tmp_path / "cache"
    assert Signals(half, model, candidates, cache).cosine.shape == (1, 2, 7)
    assert Signals(transcript, model, candidates, cache).cosine.shape == (2, 3, 7)
