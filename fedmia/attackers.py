"""Clients that attack: who they are, where they stand among the mods, what goes with them."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Protocol, runtime_checkable

from omegaconf import DictConfig

from fedmia.composition import adds_noise
from fedmia.config import build
from fedmia.errors import ConfigError, expect
from fedmia.stack import Stack, wrapped


@runtime_checkable
class Attacker(Protocol):
    """A mod, a training defence or both, by which some clients attack and others are left alone."""

    def attackers(self, num_clients: int) -> frozenset[int]:
        """Return the numbers of the clients that attack.

        Raises
        ------
        ConfigError
            If they are not among so many clients.
        """


Attackers = Mapping[str, Attacker]
"""By their names in ``client.attackers``, outermost first."""


def build_attackers(config: DictConfig, holders: int) -> dict[str, Attacker]:
    """Return the attackers that were asked for.

    Parameters
    ----------
    config
        The experiment's.
    holders
        Number of clients that hold records, the first ones.

    Raises
    ------
    ConfigError
        If one cannot be built, or would be a client without records.
    """
    made: dict[str, Attacker] = {}
    for name in map(str, config.client.get("attackers") or {}):
        key = f"client.attackers.{name}"
        attacker = build(config, key)
        fits = isinstance(attacker, Attacker)
        expect(fits, key, type(attacker).__name__, "a part with a method attackers(num_clients)")
        try:
            who = attacker.attackers(config.num_clients)
        except ConfigError as error:
            raise ConfigError(f"{key}.{error}") from None
        allowed = f"clients from 0 to {holders - 1}: canary clients hold no records to attack with"
        expect(max(who, default=0) < holders, key, _listed(who), allowed)
        made[name] = attacker
    return made


def check_attackers(attackers: Attackers, stack: Stack) -> None:
    """Refuse attackers that undo what others are promised.

    One that is ``omniscient`` answers with what it knows of honest clients' records: each of them
    would be in more than one update.

    Raises
    ------
    ConfigError
        In one line, which one and why.
    """
    noisy = [type(part).__name__ for _, part in wrapped(stack.strategy) if adds_noise(part)]
    noisy += [name for name, mod in stack.mods.items() if adds_noise(mod)]
    if getattr(stack.protocol, "noise", None):
        noisy.append("strategy.protocol.noise")
    for name, attacker in attackers.items():
        knows = getattr(attacker, "omniscient", False)
        allowed = f"less than the updates of honest clients beside {', '.join(noisy)}, whose ε "
        allowed += "counts one update a client"
        shown = getattr(attacker, "knowledge", "all")
        expect(not (knows and noisy), f"client.attackers.{name}.knowledge", shown, allowed)


def arranged(mods: Sequence[Any], attackers: Attackers) -> tuple[Any, ...]:
    """Return all mods, outermost first: what hides updates, who attacks, and the other defences.

    What hides updates is what stands first and belongs to a strategy (``needs_strategy``).
    """
    hiding = list(takewhile(lambda mod: getattr(mod, "needs_strategy", ""), mods))
    return (*hiding, *attackers.values(), *mods[len(hiding) :])


def numbers(attackers: Attackers, num_clients: int) -> frozenset[int]:
    """Return the numbers of all clients that attack in some way."""
    return frozenset().union(*(a.attackers(num_clients) for a in attackers.values()))


def notes(attackers: Attackers, num_clients: int) -> list[str]:
    """Return what must be known of a result with attackers, a line each."""
    names: dict[frozenset[int], list[str]] = {}
    for name, attacker in attackers.items():
        names.setdefault(attacker.attackers(num_clients), []).append(name)
    return [
        f"client{'s' * several} {_listed(who)} attack{'s' * (not several)} ({', '.join(how)}): "
        "their records are asked about like all others, and nothing that is claimed of honest "
        "clients holds of them"
        for who, how in names.items()
        if who
        for several in [len(who) > 1]
    ]


def _listed(who: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(who)))
