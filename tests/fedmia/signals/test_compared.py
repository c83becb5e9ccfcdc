import numpy as np
import pytest
import torch
from torch import nn

from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.records import Capability, Examples, Observation, Update
from fedmia.signals import Signals, compared
from fedmia.signals.gradients import one_by_one
from fedmia.signals.lenses import Composed, LowFrequencies, Signs, Transmitted, Without
from fedmia.transcript import Transcript, TranscriptWriter

SHAPE = (1, 8, 8)
LENSES = (
    Transmitted(),
    Signs(),
    LowFrequencies(0.2),
    Without(["1"]),
    Composed((Transmitted(), Signs())),
)


class Twice(nn.Module):
    """Uses a layer twice, which no route but the slowest takes, and counts, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        x = x.flatten(1)
        if x.sum() > 1e9:
            return self.head(x)
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))


MODELS = {
    "dense": lambda: MLP(hidden=[6])(SHAPE, 3),
    "convolutions": lambda: CNN()(SHAPE, 3),
    "any": Twice,
}


def state(model):
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def federation(path, build, rounds=2, absent=(1, 11)):
    """Write rounds of three nodes whose updates are sparse; ``absent`` is missing a round."""
    rng = np.random.default_rng(0)
    writer = TranscriptWriter(path, "server", list(Capability))
    for t in range(1, rounds + 1):
        torch.manual_seed(t)
        params = state(build())
        updates = tuple(
            Update(node, 9, {k: sparse(rng, v) for k, v in params.items()})
            for node in (10, 11, 12)
            if (t, node) != absent
        )
        writer.append(Observation(t, params, (10, 11, 12), updates))
    writer.finish(params)
    x = rng.normal(size=(6, *SHAPE)).astype(np.float32)
    return Transcript(path), build(), Examples(x, rng.integers(0, 3, 6))


def sparse(rng, v):
    return np.where(rng.random(v.shape) < 0.4, rng.normal(size=v.shape), 0).astype(np.float32)


def twin(transcript, model, candidates, lens):
    """Return cosines and those by parameter, one gradient and one client after the other."""
    T, K, n = len(transcript), len(transcript.node_ids), len(candidates)
    names = [k for k, _ in model.named_parameters()]
    cosine, parts = np.full((T, K, n), np.nan), np.full((T, K, len(names), n), np.nan)
    for t, seen in enumerate(transcript):
        model.load_state_dict({k: torch.tensor(v) for k, v in seen.params.items()})
        for update in seen.updates:
            k = transcript.node_ids.index(update.node_id)
            for i in range(n):
                loss = nn.functional.cross_entropy(
                    model.eval()(torch.tensor(candidates.x[i : i + 1])),
                    torch.tensor(candidates.y[i : i + 1]),
                )
                pieces = torch.autograd.grad(loss, list(model.parameters()))
                left, right = [], []
                for name, g in zip(names, pieces, strict=True):
                    u = -torch.tensor(update.delta[name]).flatten()
                    seen_of_g = lens.gradient(name, g.flatten()[None], u)[0].double()
                    rounding = seen_of_g.norm() < 1e-5 * g.norm()
                    left.append(0 * seen_of_g if rounding else seen_of_g)
                    right.append(lens.update(name, u).double())
                cosine[t, k, i] = angle(torch.cat(left), torch.cat(right))
                parts[t, k, :, i] = [angle(a, b) for a, b in zip(left, right, strict=True)]
    return cosine, parts


def angle(a, b):
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else 0.0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lens", LENSES, ids=str)
def test_signals_through_a_lens_are_those_of_one_gradient_after_the_other(kind, lens, tmp_path):
    recorded = federation(tmp_path / "t", MODELS[kind])
    plain = Signals(*recorded, None)
    signals = plain.through(lens)
    cosine, parts = twin(*recorded, lens)
    np.testing.assert_allclose(signals.cosine, cosine, atol=2e-5)
    whole = plain.grad_norm[:2, None] * plain.update_norm[..., None]
    np.testing.assert_allclose(signals.inner, cosine * whole, atol=2e-5 * np.nanmax(whole))
    norms = plain.parameter_norm[:, None] * plain.parameter_update_norm[..., None]
    np.testing.assert_allclose(signals.parameter_inner, parts * norms, atol=2e-5 * np.nanmax(norms))


def test_every_kind_of_model_takes_the_fastest_way_that_is_right_for_it(tmp_path):
    ways = {
        kind: compared.Compared(
            (s := Signals(*federation(tmp_path / kind, build), None))._passes,
            Signs(),
            s.candidates,
        )._plan[0]
        for kind, build in MODELS.items()
    }
    assert ways == {
        "dense": compared.dense,
        "convolutions": compared.together,
        "any": compared.in_turn,
    }


def test_without_loss_of_coordinates_nothing_changes(tmp_path):
    plain = Signals(*federation(tmp_path / "t", MODELS["dense"]), None)
    whole = plain.through(LowFrequencies(1))
    np.testing.assert_allclose(whole.cosine, plain.cosine, atol=1e-5)
    np.testing.assert_allclose(whole.inner, plain.inner, atol=1e-5 * np.nanmax(plain.grad_norm))


def test_top_k_hides_a_member_from_the_cosine_but_not_from_who_looks_at_what_was_sent(tmp_path):
    """An update along a record's own gradient of which only the largest twentieth is sent."""
    torch.manual_seed(0)
    build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3))  # noqa: E731
    model, rng = build(), np.random.default_rng(0)
    x = rng.normal(size=(40, *SHAPE)).astype(np.float32)
    records = Examples(x, rng.integers(0, 3, 40))
    member = records[:1]
    params = state(model)
    delta = {k: top(-gradient(model, member, i), 0.05) for i, k in enumerate(params)}
    writer = TranscriptWriter(tmp_path / "t", "server", list(Capability))
    writer.append(Observation(1, params, (7,), (Update(7, 1, delta),)))
    signals = Signals(Transcript(tmp_path / "t"), model, records, None)
    plain, informed = signals.cosine[0, 0], signals.through(Transmitted()).cosine[0, 0]
    assert plain[0] < 0.7
    assert informed[0] == pytest.approx(1, abs=1e-5)
    assert informed[0] - informed[1:].max() > plain[0] - plain[1:].max()


def gradient(model, records, index):
    loss = nn.functional.cross_entropy(model(torch.tensor(records.x)), torch.tensor(records.y))
    return torch.autograd.grad(loss, list(model.parameters()))[index].numpy()


def top(v, share):
    kept = np.sort(np.abs(v).ravel())[-max(1, int(share * v.size))]
    return np.where(np.abs(v) >= kept, v, 0).astype(np.float32)


def test_everything_but_cosines_is_shared_and_cut_off_alike(tmp_path):
    plain = Signals(*federation(tmp_path / "t", MODELS["dense"]), None)
    signals = plain.through(Signs())
    assert signals.loss_local is not None
    assert signals.grad_norm.base is plain.grad_norm.base
    assert np.array_equal(signals.until(1).cosine, signals.cosine[:1], equal_nan=True)
    others = plain.candidates[[2, 0]]
    np.testing.assert_allclose(signals.of(others).cosine, signals.cosine[..., [2, 0]], atol=1e-6)
    assert not np.allclose(signals.cosine[1], plain.cosine[1])


def test_two_lenses_and_none_are_cached_apart_and_read_again(tmp_path, monkeypatch):
    recorded = federation(tmp_path / "t", MODELS["dense"])
    cache = tmp_path / "signals"
    first = Signals(*recorded, cache)
    found = [np.array(first.through(lens).cosine) for lens in (Transmitted(), Signs())]
    assert not np.array_equal(found[0], found[1], equal_nan=True)
    assert first.seconds > 0

    def never(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(compared.Compared, "_measured", never)
    again = Signals(*recorded, cache)
    for lens, before in zip((Transmitted(), Signs()), found, strict=True):
        assert np.array_equal(again.through(lens).cosine, before, equal_nan=True)


def test_gradients_are_alike_whichever_way_they_are_written_down():
    torch.manual_seed(0)
    model = MODELS["convolutions"]().eval()
    x, y = torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, 0])
    u = {k: torch.randn(2, *p.shape) for k, p in model.named_parameters()}
    _, _, expected = one_by_one(model, x, y, u)
    for way in (compared.together, compared.in_turn):
        _, dots = way(Without(["nothing"]), model, x, y, u)
        torch.testing.assert_close(dots, expected, rtol=1e-4, atol=1e-5)
