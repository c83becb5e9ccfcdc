"""The mods that strategies need at the clients: there, once, and outside of all others.

Beside :mod:`fedmia.composition`, which has the attributes that parts say it by.
"""

from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
)

from fedmia.errors import expect
from fedmia.stack import Stack, wrapped

_NOISY = (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    LocalDpMod,
)
_CLIPPING = (fixedclipping_mod, adaptiveclipping_mod)


def adds_noise(part: object) -> bool:
    """Whether a strategy or a mod adds noise of its own account."""
    return isinstance(part, _NOISY) or bool(getattr(part, "adds_noise", False))


def check_mods(stack: Stack) -> None:
    """Ask for each strategy's own mod, once and outermost, and for no mod of another strategy.

    Where strategies are wrapped in one another, their mods stand in the same order.
    """
    key, shown = "client/defenses", f"[{', '.join(stack.mods)}]"
    parts = [part for _, part in wrapped(stack.strategy)]
    asked = [str(getattr(part, "needs_mod", "")) for part in parts]
    needed = list(dict.fromkeys(filter(None, asked)))
    needs = {name: str(getattr(mod, "needs_strategy", "")) for name, mod in stack.mods.items()}
    for name, other in needs.items():
        strategy = type(stack.strategy).__name__
        detector = getattr(stack.strategy, "detector", "")
        strategy += f" with detector={detector}" if detector else ""
        allowed = f"no {name}, which needs strategy={other}; it is {strategy}"
        expect(other in ("", *needed), key, shown, allowed)
    first = []
    for strategy in needed:
        own = [name for name, other in needs.items() if other == strategy]
        allowed = f"{strategy} once: strategy={strategy} needs it at the clients"
        expect(len(own) == 1, key, shown, allowed)
        first += own
    for name, own_mod in zip(stack.mods, first, strict=False):
        if name != own_mod:
            reason = _outside(stack.mods[name], str(getattr(parts[0], "hides_updates", "")))
            expect(False, key, shown, f"{own_mod} first: {name} outside of it would be {reason}")


def _outside(mod: object, hidden: str) -> str:
    """Return what a mod does outside of the one that a strategy needs."""
    after = "after masking" if hidden else "of what the strategy reads"
    if getattr(mod, "func", mod) in _CLIPPING:
        return f"clipping {after}"
    return f"clipping and noise {after}" if adds_noise(mod) else f"a change {after}"
