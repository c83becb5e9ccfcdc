import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.records import Examples
from fedmia.shadows import ShadowTraining, watched
from fedmia.shadows import training as training_module
from fedmia.shadows.rounds import average
from fedmia.training import FlatModel, LocalSGD
from fedmia.vantages import Aggregate, FinalModel, MaskedServer, Participant, Server


def records(seed, n):
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(n, 6)).astype(np.float32), np.arange(n) % 3)


AUXILIARY, CANDIDATES = records(0, 90), records(1, 60)


def shadows(folder=None, **changes):
    torch.manual_seed(0)
    settings = {
        "model": nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)),
        "trainer": LocalSGD(local_epochs=3, lr=0.2),
        "auxiliary": AUXILIARY,
        "candidates": CANDIDATES,
        "shard_sizes": [8, 8, 4],
        "num_rounds": 4,
        "num_models": 6,
        "num_federations": 2,
        "vantage": Server(),
        "seed": 3,
        "folder": folder,
    }
    return ShadowTraining(**(settings | changes))


def start_of(training):
    return {k: v.numpy() for k, v in training.model.state_dict().items()}


def loss_of(logits, y):
    z = torch.tensor(logits)
    labels = torch.tensor(y).expand(len(z), -1)
    return (
        nn.functional.cross_entropy(z.flatten(0, 1), labels.flatten(), reduction="none")
        .view(len(z), -1)
        .numpy()
    )


# reference models


def test_offline_references_hold_auxiliary_records_alone_evenly_and_at_most_half():
    models = shadows().federations()
    held = models.held(AUXILIARY)

    assert len(models) == 6
    assert held.sum(1).tolist() == [20] * 6
    assert set(held.sum(0)) <= {1, 2}
    assert not models.held(CANDIDATES).any()


def test_online_references_hold_candidates_evenly():
    held = shadows().federations(online=True).held(CANDIDATES)

    assert held.sum(1).tolist() == [20] * 6
    assert held.sum(0).tolist() == [2] * 60


def test_online_references_take_auxiliary_records_where_candidates_are_few():
    few = CANDIDATES[:30]
    models = shadows(candidates=few).federations(online=True)

    assert models.held(few).sum(0).tolist() == [3] * 30, "half of the models hold a candidate"
    assert models.held(AUXILIARY).sum(1).tolist() == [5] * 6


def test_online_references_of_large_federations_hold_half_of_all_records():
    models = shadows(shard_sizes=[60, 60, 30]).federations(online=True)

    assert models.held(CANDIDATES).sum(0).tolist() == [3] * 60
    assert models.held(AUXILIARY).sum(0).tolist() == [3] * 90


def test_references_fit_what_they_hold_better():
    models = shadows().federations()
    held, loss = models.held(AUXILIARY), loss_of(models.logits(AUXILIARY), AUXILIARY.y)

    assert loss[held].mean() < 0.5 * loss[~held].mean()


def test_shadow_clients_train_one_round_from_the_start():
    training = shadows()
    start = {k: v + 0.1 for k, v in start_of(training).items()}
    models = training.clients(start, 10)
    held = models.held(AUXILIARY)
    model, first = FlatModel(training.model), torch.tensor(AUXILIARY.x)
    model.load(start)
    before = loss_of(model.module(first)[None].detach().numpy(), AUXILIARY.y)[0]
    loss = loss_of(models.logits(AUXILIARY), AUXILIARY.y)

    assert held.sum(1).tolist() == [10] * 6
    for row, own in zip(loss, held, strict=True):
        assert row[own].mean() < before[own].mean()
    online = training.clients(start, 10, online=True).held(CANDIDATES)
    assert online.sum(0).tolist() == [1] * 60


def test_a_shadow_client_is_what_local_sgd_makes_of_its_records():
    training = shadows(num_models=1, trainer=LocalSGD(local_epochs=1, batch_size=100, lr=0.1))
    start = start_of(training)
    models = training.clients(start, 10)
    own = AUXILIARY[models.held(AUXILIARY)[0]]  # in one batch, the order does not matter
    model = FlatModel(training.model)
    training.trainer.fit(model, torch.tensor(own.x), torch.tensor(own.y), np.random.default_rng(0))

    expected = model.module(torch.tensor(CANDIDATES.x)).detach().numpy()
    np.testing.assert_allclose(models.logits(CANDIDATES)[0], expected, rtol=1e-5, atol=1e-6)


def test_logits_follow_the_order_of_the_records():
    models = shadows().federations()
    order = np.random.default_rng(0).permutation(len(CANDIDATES))

    np.testing.assert_allclose(
        models.logits(CANDIDATES[order]), models.logits(CANDIDATES)[:, order], atol=1e-6
    )
    some = AUXILIARY[order]
    assert (models.held(some) == models.held(AUXILIARY)[:, order]).all()


def test_a_record_is_known_by_its_features_and_its_label():
    models = shadows().federations()
    relabelled = Examples(AUXILIARY.x, (AUXILIARY.y + 1) % 3)

    assert not models.held(relabelled).any()


def test_whoever_trained_on_one_of_two_equal_records_has_seen_the_other():
    twins = AUXILIARY[np.repeat(np.arange(45), 2)]
    held = shadows(auxiliary=twins).federations().held(twins)

    assert (held[:, ::2] == held[:, 1::2]).all()
    assert held.any()
    assert not held.all()


@pytest.mark.parametrize("online", [False, True])
def test_training_twice_gives_the_same_bytes(tmp_path, online):
    for name in ("a", "b"):
        shadows(tmp_path / name).federations(online)
    (a,), (b,) = ((tmp_path / name).glob("*.safetensors") for name in ("a", "b"))
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()
    drawn = CANDIDATES if online else AUXILIARY
    first, other = (shadows(tmp_path / "a", seed=seed).federations(online) for seed in (3, 4))
    assert (first.held(drawn) != other.held(drawn)).any()


# what is kept


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def counting(*args, **kwargs):
        calls.append(args)
        return average(*args, **kwargs)

    for module in (training_module, watched):
        monkeypatch.setattr(module, "average", counting)
    return calls


def everything(training):
    training.federations()
    training.clients(start_of(training), 8)
    return training.transcripts()


def test_nothing_is_trained_twice(tmp_path, counted):
    training = shadows(tmp_path)
    everything(training)
    spent = training.seconds
    assert everything(training) is everything(training)
    assert len(counted) == 3
    assert 0 < spent <= training.seconds < 1.5 * spent + 0.1

    everything(shadows(tmp_path))
    assert len(counted) == 3

    everything(shadows(tmp_path, trainer=LocalSGD(local_epochs=1)))
    assert len(counted) == 6


def test_damaged_files_are_trained_again(tmp_path, counted):
    training = shadows(tmp_path)
    everything(training)
    expected = training.federations().logits(CANDIDATES)
    for file in [*tmp_path.glob("*.safetensors"), *tmp_path.rglob("round_00002.safetensors")]:
        file.write_bytes(file.read_bytes()[:100])

    again = shadows(tmp_path)
    everything(again)

    assert len(counted) == 6
    np.testing.assert_array_equal(again.federations().logits(CANDIDATES), expected)
    assert all(len(f.view.transcript) == 4 for f in again.transcripts())


def test_without_a_folder_everything_goes_when_the_process_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    last = []
    monkeypatch.setattr("atexit.register", lambda *a, **k: last.append((a, k)))
    everything(shadows())
    assert list(tmp_path.iterdir())
    for (function, *args), kwargs in last:
        function(*args, **kwargs)
    assert not list(tmp_path.iterdir())


# transcripts


def test_the_server_watches_every_client_of_a_shadow_federation():
    for federation in (made := shadows().transcripts()):
        transcript, signals = federation.view.transcript, federation.view.signals
        assert transcript.vantage == "server"
        assert transcript.rounds == (1, 2, 3, 4)
        assert transcript.node_ids == federation.nodes == (0, 1, 2)
        assert [u.num_examples for u in transcript[0].updates] == [8, 8, 4]
        assert np.bincount(federation.owner + 1).tolist() == [70, 8, 8, 4]
        loss = signals.loss_local.mean(0)
        for k in range(3):
            assert loss[k][federation.owner == k].mean() < loss[k][federation.owner == -1].mean()
    assert (made[0].candidates.x != made[1].candidates.x).any()
    start = shadows().model.state_dict()["0.weight"].numpy()
    np.testing.assert_array_equal(made[0].view.transcript[0].params["0.weight"], start)


def test_the_aggregate_of_a_shadow_round_is_the_weighted_mean_of_its_updates():
    transcript = shadows().transcripts()[0].view.transcript
    for observation in transcript:
        for name, change in observation.aggregate.items():
            parts = [u.num_examples * u.delta[name] for u in observation.updates]
            np.testing.assert_allclose(change, sum(parts) / 20, atol=1e-5)


def test_the_order_of_candidates_says_nothing_of_membership():
    for federation in shadows().transcripts():
        place = np.arange(90)
        assert abs(np.corrcoef(place, federation.owner >= 0)[0, 1]) < 0.3
        assert not np.array_equal(federation.candidates.x, AUXILIARY.x)


def test_a_participant_sees_global_models_and_is_not_asked_about_itself():
    for federation in shadows(vantage=Participant(1)).transcripts():
        transcript = federation.view.transcript
        assert federation.nodes == (None,)
        assert np.bincount(federation.owner + 1).tolist() == [70, 12]
        assert transcript.vantage == "participant"
        assert transcript.rounds == (1, 2, 3, 4)
        assert all(not o.updates for o in transcript)
        assert transcript.final is None
        assert federation.view.signals.loss_global.shape == (4, 82)


@pytest.mark.parametrize("vantage", [Aggregate(), MaskedServer("secagg_plus")], ids=str)
def test_who_sees_sums_alone_watches_them_and_asks_about_everyone(vantage, tmp_path):
    training = shadows(tmp_path, vantage=vantage)
    plain = shadows(tmp_path).transcripts()
    for federation, wide in zip(training.transcripts(), plain, strict=True):
        transcript, signals = federation.view.transcript, federation.view.signals
        assert (transcript.vantage, transcript.shows) == (vantage.name, vantage.shows)
        assert transcript.hides_updates == vantage.hides_updates
        assert transcript.rounds == (1, 2, 3, 4)
        assert all(not o.updates and not o.masked for o in transcript)
        assert all(transcript.summed)
        assert federation.nodes == (None,)
        assert np.bincount(federation.owner + 1).tolist() == [70, 20]
        assert signals.loss_global.shape == (5, 90)
        cosine = signals.aggregate_cosine.mean(0)
        assert cosine[federation.owner == 0].mean() > cosine[federation.owner == -1].mean()
        # the same federations, seen from elsewhere
        start, there = transcript[0].params, wide.view.transcript[0].params
        assert all(np.array_equal(start[k], there[k]) for k in start)


def test_who_gets_the_finished_model_alone_draws_its_own_first_weights(tmp_path):
    training = shadows(tmp_path, vantage=FinalModel())
    for federation in training.transcripts():
        assert federation.nodes == (None,)
        assert np.bincount(federation.owner + 1).tolist() == [70, 20]
        assert len(federation.view.transcript) == 0
        assert federation.view.signals.loss_global.shape == (1, 90)
        loss = federation.view.signals.loss_global[0]
        assert loss[federation.owner == 0].mean() < loss[federation.owner == -1].mean()
    starts = training._starts(3)
    assert not torch.equal(starts["0.weight"][0], starts["0.weight"][1])
    assert not torch.equal(starts["0.weight"][0], training.model.state_dict()["0.weight"])
    assert torch.equal(starts["0.weight"], training._starts(3)["0.weight"])


def test_large_shards_are_lowered_to_half_of_the_records():
    training = shadows(shard_sizes=[60, 60, 30])
    assert training.federations().held(AUXILIARY).sum(1).tolist() == [45] * 6
    assert np.bincount(training.transcripts()[0].owner + 1).tolist() == [45, 18, 18, 9]


# what cannot be


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_models": 0}, "num_models=0: expected at least 1"),
        ({"num_rounds": 0}, "num_rounds=0: expected at least 1"),
        ({"num_federations": 0}, "num_federations=0: expected at least 1"),
        ({"shard_sizes": []}, r"shard_sizes=\[\]: expected one or more, each above 0"),
        ({"shard_sizes": [3, 0]}, r"shard_sizes=\[3, 0\]: expected one or more, each above 0"),
    ],
)
def test_numbers_that_are_not_positive_are_refused(changes, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        shadows(**changes)


def test_too_few_records_are_refused_when_training_is_asked_for():
    training = shadows(auxiliary=AUXILIARY[:5])
    line = "^auxiliary=5: expected at least 6 records, two for each shadow client$"
    for ask in (training.federations, training.transcripts):
        with pytest.raises(ConfigError, match=line):
            ask()
    assert len(training.clients(start_of(training), 2)) == 6
    with pytest.raises(ConfigError, match=r"^size=0: expected at least 1$"):
        training.clients(start_of(training), 0)


def test_progress_is_told():
    ticks = []
    training = shadows(on_progress=lambda *t: ticks.append(t))
    training.federations()
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_shadows_can_key_a_cache():
    training = shadows()
    assert hash(training) != hash(dataclasses.replace(training))
    assert training != dataclasses.replace(training)
