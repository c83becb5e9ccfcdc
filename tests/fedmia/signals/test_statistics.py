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
from fedmia.signals import Signals, statistics
from fedmia.transcript import Transcript, TranscriptWriter

NAMES = (
    "loss_global",
    "logit_gap_global",
    "loss_local",
    "logit_gap_local",
    "grad_norm",
    "inner",
    "cosine",
    "update_norm",
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


def test_a_step_along_the_candidates_own_gradient_has_cosine_one(tmp_path):
    delta = {
        "weight": np.array([[1.5, 0], [-1.5, 0]], np.float32),
        "bias": np.array([0.5, -0.5], np.float32),
    }
    for size in (1, 1e-30):  # an update does not vanish by being small
        signals = by_hand(tmp_path / str(size), {k: v * np.float32(size) for k, v in delta.items()})
        assert signals.cosine.item() == pytest.approx(1)


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
    expected = {
        "loss_global": np.full((3, 7), np.nan),
        "loss_local": np.full((2, 3, 7), np.nan),
        "grad_norm": np.full((2, 7), np.nan),
        "inner": np.full((2, 3, 7), np.nan),
        "cosine": np.full((2, 3, 7), np.nan),
        "update_norm": np.full((2, 3), np.nan),
    }
    twin = build().eval()

    def at(params):
        twin.load_state_dict({k: torch.tensor(v) for k, v in params.items()})
        return twin

    def loss(params, i):
        x, y = torch.tensor(candidates.x[i : i + 1]), torch.tensor(candidates.y[i : i + 1])
        return nn.functional.cross_entropy(at(params)(x), y)

    for i in range(7):
        for t, observation in enumerate(transcript):
            value = loss(observation.params, i)
            gradient = torch.autograd.grad(value, list(twin.parameters()))
            g = torch.cat([part.flatten() for part in gradient]).double().numpy()
            expected["loss_global"][t, i] = value.item()
            expected["grad_norm"][t, i] = np.linalg.norm(g)
            for update in observation.updates:
                k = signals.nodes.index(update.node_id)
                u = -np.concatenate([update.delta[n].ravel() for n, _ in twin.named_parameters()])
                local = {n: v + update.delta[n] for n, v in observation.params.items()}
                expected["loss_local"][t, k, i] = loss(local, i).item()
                expected["inner"][t, k, i] = g @ u
                expected["cosine"][t, k, i] = g @ u / np.linalg.norm(g) / np.linalg.norm(u)
                expected["update_norm"][t, k] = np.linalg.norm(u)
        expected["loss_global"][2, i] = loss(transcript.final, i).item()
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(signals, name), value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        np.log1p(np.exp(-signals.logit_gap_local)), signals.loss_local, rtol=1e-12
    )
    assert signals.loss_local.dtype == signals.logit_gap_global.dtype == np.float64
    assert signals.cosine.dtype == np.float32


def test_present_marks_what_was_seen_and_the_rest_is_nan(recorded):
    signals = Signals(*recorded, None)
    assert signals.present.tolist() == [[True, False, True], [False, True, True]]
    for name in ("loss_local", "logit_gap_local", "inner", "cosine"):
        assert (np.isfinite(getattr(signals, name)).all(2) == signals.present).all(), name
    assert (np.isfinite(signals.update_norm) == signals.present).all()


def test_until_shows_the_first_rounds_only(recorded):
    signals = Signals(*recorded, None)
    early = signals.until(1)
    assert early.rounds == early.rounds_global == (1,)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(early, name), getattr(signals, name)[:1])


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


def test_a_broken_update_spoils_its_own_columns_only(tmp_path):
    transcript, model, candidates = federation(tmp_path / "sound")
    rounds = [(o.round, o.params, {u.node_id: u.delta for u in o.updates}) for o in transcript]
    broken = {k: np.full_like(v, np.nan) for k, v in rounds[0][2][12].items()}
    rounds[0][2][12] = broken
    sound = Signals(transcript, model, candidates, None)
    signals = Signals(write(tmp_path / "broken", rounds), model, candidates, None)
    for name in ("loss_local", "inner", "cosine", "update_norm"):
        measured, expected = getattr(signals, name), getattr(sound, name).copy()
        expected[0, 2] = np.nan
        np.testing.assert_allclose(measured, expected, rtol=1e-6, err_msg=name)


def test_a_broken_candidate_spoils_its_own_numbers_only(recorded):
    transcript, model, candidates = recorded
    x = candidates.x.copy()
    x[3, 0] = np.nan
    signals = Signals(transcript, model, dataclasses.replace(candidates, x=x), None)
    sound = Signals(transcript, model, candidates, None)
    others = np.arange(7) != 3
    for name in ("loss_global", "loss_local", "grad_norm", "cosine"):
        measured, expected = getattr(signals, name), getattr(sound, name)
        assert np.isnan(measured[..., 3]).all(), name
        np.testing.assert_allclose(measured[..., others], expected[..., others], rtol=1e-5)


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
    np.testing.assert_array_equal(signals.loss_global, whole.loss_global[2:])
    assert signals.cosine.shape[0] == signals.loss_local.shape[0] == 0


def test_rounds_that_show_no_updates_still_show_the_global_model(tmp_path):
    transcript, model, candidates = federation(tmp_path / "transcript")
    blind = transcript.through(
        "participant", [], lambda o: dataclasses.replace(o, updates=()) if o.round else None
    )
    signals = Signals(blind, model, candidates, None)
    whole = Signals(transcript, model, candidates, None)
    assert signals.rounds_global == (1, 2)
    np.testing.assert_array_equal(signals.loss_global, whole.loss_global[:2])
    np.testing.assert_allclose(signals.grad_norm, whole.grad_norm, rtol=1e-6)
    assert np.isnan(signals.cosine).all()


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

    monkeypatch.setattr(statistics, "evaluate", refuse)
    monkeypatch.setattr(statistics, "plan_route", refuse)
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
