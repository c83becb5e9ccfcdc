"""Who was suspected, held against who attacks: the field ``suspicion`` of ``result.json``."""

from collections.abc import Iterable, Mapping

from fedmia import attackers
from fedmia.recording import Training
from fedmia.stage import Stage
from fedmia.suspected import RoundReputations, Suspected, Suspicion


def suspicion(stage: Stage, training: Training) -> Suspicion | None:
    """Return what the strategy had against single clients; ``None`` if there is nothing to say.

    That is without flags, without reputations and without a client that attacks.
    """
    attack = _attacks(stage)
    if not (training.flags or training.reputations or attack):
        return None
    flags = _flags(training)
    honest = set(range(stage.holders)) - set(attack)
    caught = [f for f in flags if f["round"] >= attack.get(f["client"], f["round"] + 1)]
    return {
        "flags": flags,
        "reputations": _reputations(training),
        "attackers": sorted(attack),
        "detection_rate": _share(attack, caught),
        "isolation_rate": _share(attack, [flag for flag in caught if flag["isolated"]]),
        "false_positive_rate": _share(honest, flags),
        "false_isolation_rate": _share(honest, [flag for flag in flags if flag["isolated"]]),
        "first_detection": min((flag["round"] for flag in caught), default=None),
    }


def _attacks(stage: Stage) -> dict[int, int]:
    """Return the first round in which each attacking client attacks."""
    found: dict[int, int] = {}
    for name, attacker in stage.attackers.items():
        first = int(getattr(attacker, "from_round", 1))
        for client in attackers.numbers({name: attacker}, stage.config.num_clients):
            found[client] = min(first, found.get(client, first))
    return found


def _flags(training: Training) -> list[Suspected]:
    """Return the audit list, by round and client."""
    found: list[Suspected] = [
        {
            "round": flag.round,
            "client": training.nodes[flag.node_id],
            "reason": flag.reason,
            "evidence": dict(flag.evidence),
            "isolated": flag.isolated,
        }
        for flag in training.flags
    ]
    return sorted(found, key=lambda flag: (flag["round"], flag["client"]))


def _reputations(training: Training) -> list[RoundReputations]:
    isolated = dict(training.isolations)
    return [
        {
            "round": server_round,
            "clients": {str(client): value for client, value in _by_client(training, values)},
            "isolated": sorted(
                training.nodes[node]
                for node in isolated.get(server_round, ())
                if node in training.nodes
            ),
        }
        for server_round, values in training.reputations
    ]


def _by_client(training: Training, values: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return the values of this run's clients; a strategy may remember others."""
    here = {node: value for node, value in values.items() if node in training.nodes}
    return sorted((training.nodes[node], value) for node, value in here.items())


def _share(who: Iterable[int], flags: Iterable[Suspected]) -> float | None:
    """Return the share of these clients that some flag is about, ``None`` of none."""
    asked = set(who)
    return len(asked & {flag["client"] for flag in flags}) / len(asked) if asked else None
