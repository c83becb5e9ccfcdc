"""What an adversary that knows the defences does about them (``attack.adaptive``).

It looks at updates through the lenses of client mods and of the strategy, and has shadow clients
defend themselves as the federation's clients do. Attacks stay what they are: what they are handed
differs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedmia import settings
from fedmia.attacks.base import Attack
from fedmia.knowledge import View
from fedmia.records import Capability
from fedmia.settings import ADAPTIVE
from fedmia.shadows.simulation import Perturbing, Simulation
from fedmia.signals.lenses import Composed, Lens
from fedmia.site import TrainingDefense
from fedmia.stack import wrapped
from fedmia.stage import Stage


@dataclass(frozen=True)
class Informed:
    """What can be done about the defences of a federation from one vantage.

    Parameters
    ----------
    lens
        How to compare updates with gradients; ``None`` as without a defence.
    simulation
        What shadow clients do; ``None`` where they defend themselves in no way, or there are none.
    seen_through, simulated, unsimulated
        Names of the client's defences that have a lens, that shadow clients repeat, and that
        they go without.
    """

    lens: Lens | None
    simulation: Simulation | None
    seen_through: tuple[str, ...] = ()
    simulated: tuple[str, ...] = ()
    unsimulated: tuple[str, ...] = ()

    def concerns(self, attack: Attack) -> bool:
        """Whether an attack may read something else than without the knowledge."""
        needs = attack.requirements()
        shadows = Capability.SHADOWS in needs
        if self.lens and (shadows or Capability.CLIENT_UPDATES in needs):
            return True
        return self.simulation is not None and shadows

    def view(self, seen: View) -> View:
        """Return what attacks are handed in place of a view."""
        if self.lens is None:
            return seen
        return View(seen.transcript, seen.signals.through(self.lens))


def wanted(stage: Stage) -> bool:
    """Whether the run is asked for attackers that know the defences."""
    return bool(stage.config.attack.get(ADAPTIVE, False))


def informed(stage: Stage) -> Informed | None:
    """Return what knowing the defences comes to, ``None`` where it comes to nothing."""
    mods = stage.stack.mods
    lens: Lens | None = None
    looked, hooked, bare = list[str](), list[str](), list[str]()
    if Capability.CLIENT_UPDATES in stage.vantage.shows:
        lens, looked = _composed(stage), [name for name, mod in mods.items() if _lens(mod)]
    if Capability.SHADOWS in stage.gives:
        for name, mod in mods.items():
            (hooked if isinstance(mod, TrainingDefense | Perturbing) else bare).append(name)
    if lens is None and not hooked:
        return None
    simulation = Simulation(tuple(mods[name] for name in hooked)) if hooked else None
    return Informed(lens, simulation, tuple(looked), tuple(hooked), tuple(bare))


def notes(stage: Stage, knows: Informed | None, rows: int) -> list[str]:
    """Return what a reader of the rows has to know; ``rows`` were added."""
    found = []
    if stage.release and Capability.SHADOWS in stage.gives:
        found.append("adaptive: shadow models show their outputs as they are, without a release")
    if knows is None:
        return [*found, f"attack.{ADAPTIVE}: knowing the defences would change nothing here"]
    found += [f"adaptive: {name} is not simulated by shadow clients" for name in knows.unsimulated]
    if not rows:
        found.append("adaptive: no attack that was asked for reads anything else for knowing them")
    return found


def adapted(stage: Stage, rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the defences at the client that the attacker of some row adapts to."""
    names = {row["name"] for row in rows if row.get("adaptive")}
    asked = [attack for name, attack in stage.attacks.items() if settings.informed(name) in names]
    knows = informed(stage) if asked else None
    if knows is None:
        return ()
    shadows = any(Capability.SHADOWS in attack.requirements() for attack in asked)
    return tuple(dict.fromkeys([*knows.seen_through, *(knows.simulated if shadows else ())]))


def _composed(stage: Stage) -> Lens | None:
    """Return the lenses of all defences as one, in the order in which they act on an update."""
    parts = [*reversed(stage.mods), *(part for _, part in reversed([*wrapped(stage.strategy())]))]
    lenses = list(dict.fromkeys(lens for part in parts if (lens := _lens(part))))
    return Composed(tuple(lenses)) if len(lenses) > 1 else next(iter(lenses), None)


def _lens(part: object) -> Lens | None:
    lens = getattr(part, "lens", None)
    return lens if isinstance(lens, Lens) else None
