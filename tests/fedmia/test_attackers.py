"""Where attackers stand among the mods, what they may not stand beside, what is said of them."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from fedmia import attackers
from fedmia.arrays import to_params, to_record
from fedmia.client_app import app
from fedmia.config import compose
from fedmia.document import _notes
from fedmia.errors import ConfigError
from fedmia.preparation import prepare
from fedmia.recording import train
from fedmia.training import FlatModel

SMALL = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "attack=yeom_loss",
    "candidates.nonmembers=100",
    "observer.vantage=final_model",
    "num_clients=8",
    "num_rounds=2",
]
BOTH = "client/attackers=[sign_flip,alie]"


def staged(*overrides):
    return prepare(compose([*SMALL, *overrides]))


def refusal(*overrides):
    with pytest.raises(ConfigError) as caught:
        staged(*overrides)
    return str(caught.value)


def final(folder, *overrides):
    """Return the final model of a run, as one vector."""
    stage = staged(*overrides)
    folder.mkdir()
    training = stage.pool.run(
        stage.federation(),
        stage.config.num_clients,
        stage.seed,
        lambda grid: train(stage, grid, folder, lambda number, accuracy: None),
    )
    assert training.failure is None
    return np.concatenate([value.ravel() for value in training.params.values()])


def test_they_stand_inside_of_what_hides_updates_and_outside_of_other_defences():
    stage = staged("strategy=secagg_plus", "client/defenses=[secagg_plus,clipping]", BOTH)
    names = [type(mod).__name__ for mod in stage.federation().mods]
    assert names == ["SecAggPlus", "SignFlip", "Alie", "Clipping"]
    assert list(stage.stack.mods) == ["secagg_plus", "clipping"]


def test_without_what_hides_updates_they_are_outermost():
    mods = staged("client/defenses=[clipping]", BOTH).federation().mods
    assert [type(mod).__name__ for mod in mods] == ["SignFlip", "Alie", "Clipping"]


def test_nobody_attacks_unless_asked_to():
    stage = staged()
    assert stage.attackers == {}
    assert attackers.numbers(stage.attackers, 8) == frozenset()
    assert not any("attack" in line for line in _notes(stage))


def test_the_truth_is_all_who_attack_in_some_way_and_the_notes_name_them():
    who = ["client.attackers.sign_flip.fraction=null", "client.attackers.sign_flip.clients=[0]"]
    stage = staged(BOTH, *who)
    assert attackers.numbers(stage.attackers, 8) == {0, 6, 7}
    said = [line for line in _notes(stage) if "attack" in line]
    rest = "their records are asked about like all others, and nothing that is claimed of honest "
    assert said == [
        f"client 0 attacks (sign_flip): {rest}clients holds of them",
        f"clients 6, 7 attack (alie): {rest}clients holds of them",
    ]
    together = [line for line in _notes(staged(BOTH)) if "attack" in line]
    assert together == [f"clients 6, 7 attack (sign_flip, alie): {rest}clients holds of them"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["client.attackers.alie.fraction=null", "client.attackers.alie.clients=[1,8]"],
            "client.attackers.alie.clients=[1, 8]: expected numbers from 0 to 7 (num_clients=8)",
        ),
        (
            ["client.attackers.alie.z=null"],
            "client.attackers.alie.z=null: expected a number: with 2 attackers of 8 clients z_max "
            "is 0",
        ),
        (
            ["client.attackers.alie.num_clients=20", "client.attackers.alie.fraction=0.04"],
            "client.attackers.alie.knowledge=colluders: expected all, or at least 2 attackers, "
            "whose updates differ; there is 1",
        ),
        (
            ["client/canaries=random_direction", "num_clients=20"],
            "client.attackers.alie=16, 17, 18, 19: expected clients from 0 to 11: canary clients "
            "hold no records to attack with",
        ),
    ],
)
def test_attackers_that_cannot_be_are_refused_before_training(overrides, line):
    canaries = ["client.canaries.random_direction.count=8"] * ("canaries" in overrides[0])
    assert refusal("client/attackers=[alie]", *overrides, *canaries) == line


@pytest.mark.parametrize(
    ("overrides", "noisy"),
    [
        (["client/defenses=[local_dp]"], "local_dp"),
        (["strategy=dp_central"], "DpCentral"),
    ],
)
def test_who_knows_all_may_not_stand_beside_noise_that_is_accounted_for(overrides, noisy):
    knows = ["client/attackers=[min_max]", "client.attackers.min_max.knowledge=all"]
    assert refusal(*overrides, *knows) == (
        "client.attackers.min_max.knowledge=all: expected less than the updates of honest clients "
        f"beside {noisy}, whose ε counts one update a client"
    )
    staged(*overrides, "client/attackers=[min_max]")
    staged(*knows)


def test_what_is_no_attacker_is_refused():
    named = "client.attackers.sign_flip._target_=fedmia.models.logistic.Logistic"
    dropped = [f"~client.attackers.sign_flip.{key}" for key in FIELDS]
    with pytest.raises(ConfigError, match="a part with a method attackers"):
        staged("client/attackers=[sign_flip]", named, *dropped)


FIELDS = ("clients", "fraction", "num_clients", "from_round", "scale")


def test_a_forged_update_is_masked_like_any_other(tmp_path):
    """The sum under the masks is that of what the attackers sent, up to its rounding."""
    flips = ["client/attackers=[sign_flip]", "client.attackers.sign_flip.scale=1", "partition=iid"]
    same = ["strategy.protocol.max_weight=1", "strategy.protocol.clip=8"]
    hidden = final(tmp_path / "a", "strategy=secagg_plus", *same, *flips)
    shown = final(tmp_path / "b", *flips)
    honest = final(tmp_path / "c", "partition=iid")
    assert hidden == pytest.approx(shown, abs=1e-3)
    assert np.abs(hidden - honest).max() > 0.05


EVERYBODY = [
    "client/attackers=[gaussian_noise,label_flip,alie,min_max]",
    *(f"client.attackers.{name}.fraction=null" for name in ("gaussian_noise", "label_flip")),
    *(f"client.attackers.{name}.fraction=null" for name in ("alie", "min_max")),
    "client.attackers.gaussian_noise.clients=[0]",
    "client.attackers.label_flip.clients=[1]",
    "client.attackers.alie.clients=[2,3]",
    "client.attackers.min_max.clients=[4,5]",
    "client.attackers.min_max.knowledge=all",
]


@pytest.mark.slow
def test_pools_give_the_same_bytes_under_every_attacker(tmp_path, ray_session):
    serial = final(tmp_path / "a", *EVERYBODY)
    ray = final(tmp_path / "b", *EVERYBODY, "pool=ray", "pool.num_actors=2")
    assert ray.tobytes() == serial.tobytes()
    assert serial.tobytes() != final(tmp_path / "c").tobytes()


def test_the_deployed_app_attacks_as_the_simulated_one():
    """An app made of the overrides alone, as a node makes it."""
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    params = FlatModel(staged().model).params()

    def sent(client, attack):
        overrides = " ".join([*SMALL, f"client/attackers=[{attack}]"])
        settings = {"partition-id": client, "num-partitions": 8}
        context = Context(1, 7, settings, RecordDict(), {"overrides": overrides})
        content = {"arrays": to_record(params), "config": ConfigRecord({"server-round": 1})}
        reply = app(Message(RecordDict(content), 7, "train"), context)
        after = to_params(reply.content["arrays"])
        return np.concatenate([(after[k] - params[k]).ravel() for k in params])

    assert sent(7, "sign_flip") == pytest.approx(-5 * sent(7, ""), rel=1e-3, abs=1e-5)
    assert sent(0, "sign_flip").tobytes() == sent(0, "").tobytes()
    assert sent(6, "alie").tobytes() == sent(7, "alie").tobytes()
