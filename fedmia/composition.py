"""Which strategies, mods and clients fit together; what does not is refused before any training.

A part says what it is by attributes of its own:

``hides_updates`` (strategy)
    Name of the defence by which it sees sums only; empty or absent if it sees updates.
``needs_mod`` (strategy), ``needs_strategy`` (mod)
    One name on both sides, of those that work only together.
``uniform_words`` (strategy)
    Whether what clients send it must look uniform; not so for ciphertexts with headers.
``adds_noise`` (strategy or mod)
    Whether it adds noise for which it keeps an account; Flower's own are known.
``linear`` (strategy)
    See :func:`strategies.linear.is_linear`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)

from fedmia.errors import expect
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.protocol import Protocol

_NOISY = (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    LocalDpMod,
)
_CLIPPING = (fixedclipping_mod, adaptiveclipping_mod)


@dataclass(frozen=True)
class Stack:
    """What is put together.

    Parameters
    ----------
    strategy
        The outermost one.
    mods
        Around each client, outermost first, by their names in ``client.defenses``.
    weights
        Number of records of each client, shape (clients,).
    dropout
        Probability with which a client fails to answer a round.
    """

    strategy: Strategy
    mods: Mapping[str, object]
    weights: Sequence[int]
    dropout: float = 0.0

    @property
    def protocol(self) -> object:
        """The public parameters of the protocol that the strategy speaks, ``None`` without one."""
        return getattr(self.strategy, "protocol", None)

    @property
    def sampled(self) -> int | None:
        """How many clients are asked in a round; ``None`` where the strategy does not say."""
        for _, strategy in wrapped(self.strategy):
            share = getattr(strategy, "fraction_train", None)
            if isinstance(share, int | float):
                fewest = int(getattr(strategy, "min_train_nodes", 0))
                return min(len(self.weights), max(int(len(self.weights) * share), fewest))
        return None


def check(stack: Stack) -> None:
    """Refuse a stack of which one part undoes or cannot work with another.

    Raises
    ------
    ConfigError
        In one line, which part is not allowed and why.
    """
    check_around(stack)
    check_mods(stack)
    check_same_protocol(stack)
    check_noise(stack)
    check_weights(stack)
    check_cohort(stack)
    check_threshold(stack)
    check_dropout(stack)


def notes(stack: Stack) -> list[str]:
    """Return what is allowed and yet must be known, a line each."""
    found = []
    if getattr(stack.strategy, "hides_updates", ""):
        for path, strategy in wrapped(stack.strategy):
            if share := getattr(strategy, "fraction_evaluate", 0.0):
                found.append(
                    f"evaluation metrics are not masked ({path}.fraction_evaluate={share})"
                )
    if isinstance(stack.protocol, Protocol) and stack.dropout > stack.protocol.dropout:
        found.append(
            f"client.dropout={stack.dropout} is more than strategy.protocol.dropout="
            f"{stack.protocol.dropout}: rounds may be abandoned"
        )
    return found


def wrapped(strategy: Strategy, key: str = "strategy") -> Iterator[tuple[str, Strategy]]:
    """Yield a strategy and those that it wraps, outer ones first, with their keys."""
    yield key, strategy
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            yield from wrapped(value, f"{key}.{name}")


def check_around(stack: Stack) -> None:
    """Refuse a strategy around one that hides updates: it would take words for updates."""
    outer = type(stack.strategy).__name__
    allowed = f"to be the outermost strategy: {outer} around it would take masked words for updates"
    for key, inner in list(wrapped(stack.strategy))[1:]:
        expect(not getattr(inner, "hides_updates", ""), key, type(inner).__name__, allowed)


def check_mods(stack: Stack) -> None:
    """Ask for the strategy's own mod, once and outermost, and for no mod of another strategy."""
    key, shown = "client/defenses", f"[{', '.join(stack.mods)}]"
    needed = str(getattr(stack.strategy, "needs_mod", ""))
    needs = {name: str(getattr(mod, "needs_strategy", "")) for name, mod in stack.mods.items()}
    for name, other in needs.items():
        strategy = type(stack.strategy).__name__
        allowed = f"no {name}, which needs strategy={other}; it is {strategy}"
        expect(other in ("", needed), key, shown, allowed)
    if not needed:
        return
    own = [name for name, strategy in needs.items() if strategy]
    expect(len(own) == 1, key, shown, f"{needed} once: strategy={needed} needs it at the clients")
    for name, mod in stack.mods.items():
        if name == own[0]:
            return
        if getattr(mod, "func", mod) in _CLIPPING:
            reason = "clipping after masking"
        elif adds_noise(mod):
            reason = "clipping and noise after masking"
        else:
            reason = "a change after masking"
        expect(False, key, shown, f"{own[0]} first: {name} outside of it would be {reason}")


def check_same_protocol(stack: Stack) -> None:
    """Ask for the same public parameters on both sides."""
    ours = stack.protocol
    for name, mod in stack.mods.items():
        theirs = getattr(mod, "protocol", ours)
        key = f"client.defenses.{name}.protocol"
        kind = type(theirs).__name__
        expect(
            type(theirs) is type(ours), key, kind, f"{type(ours).__name__}, as strategy.protocol"
        )
        for field in fields(ours) if isinstance(ours, Protocol | Cohort) else ():
            here, there = getattr(ours, field.name), getattr(theirs, field.name)
            expect(here == there, f"{key}.{field.name}", there, f"{here}, as in strategy.protocol")


def adds_noise(part: object) -> bool:
    """Whether a strategy or a mod adds noise of its own account."""
    return isinstance(part, _NOISY) or bool(getattr(part, "adds_noise", False))


def check_noise(stack: Stack) -> None:
    """Refuse noise under the mask together with any other: it would be counted twice."""
    noise = getattr(stack.protocol, "noise", None)
    if not noise:
        return
    inner = list(wrapped(stack.strategy))[1:]
    parts = [*inner, *((f"client.defenses.{name}", mod) for name, mod in stack.mods.items())]
    for key, part in parts:
        allowed = f"none beside {key}={type(part).__name__}, or noise would be counted twice"
        expect(not adds_noise(part), "strategy.protocol.noise.mechanism", noise.mechanism, allowed)


def check_weights(stack: Stack) -> None:
    """Ask that every client's number of records fits under the mask."""
    most = getattr(stack.protocol, "max_weight", 1)
    if most == 1:
        return
    largest = max(stack.weights)
    allowed = f"at least {largest}, the records of client {list(stack.weights).index(largest)}"
    allowed += "; or 1, and all clients count the same"
    expect(largest <= most, "strategy.protocol.max_weight", most, allowed)


def check_cohort(stack: Stack) -> None:
    """Ask that all clients of a round fit into the sum."""
    cohort = getattr(stack.protocol, "cohort", None)
    if cohort is None or stack.sampled is None:
        return
    allowed = f"at least {stack.sampled}, the clients asked in a round"
    expect(stack.sampled <= cohort, "strategy.protocol.cohort", cohort, allowed)


def check_threshold(stack: Stack) -> None:
    """Ask that a round can be summed in which nobody is lost."""
    protocol, sampled = stack.protocol, stack.sampled
    if sampled is None:
        return
    if isinstance(protocol, Cohort):
        allowed = f"at most {sampled}, the clients asked in a round"
        least = protocol.min_clients
        expect(least <= sampled, "strategy.protocol.min_clients", least, allowed)
    if isinstance(protocol, Protocol):
        needed, least = protocol.shares_needed, protocol.fewest(sampled)
        allowed = f"at most {sampled - 1}, the others of {sampled} clients asked in a round"
        allowed += f" (null with cohort={sampled} chooses one)" if sampled >= 3 else ""
        expect(needed < sampled, "strategy.protocol.threshold", needed, allowed)
        allowed = f"at most {sampled}, the clients asked in a round"
        expect(least <= sampled, "strategy.protocol.noise.min_survivors", least, allowed)


def check_dropout(stack: Stack) -> None:
    """Ask that a round can be summed in which as many clients are lost as are on average."""
    protocol, sampled = stack.protocol, stack.sampled
    if sampled is None:
        return
    limits = {}
    if isinstance(protocol, Cohort):
        limits[f"{protocol.min_clients} of {sampled} clients"] = protocol.min_clients / sampled
    if isinstance(protocol, Protocol):
        around, needed = min(protocol.degree, sampled - 1), protocol.shares_needed
        fewest = protocol.fewest(sampled)
        limits[f"{fewest} of {sampled} clients"] = fewest / sampled
        limits[f"{needed} of {around} neighbours"] = needed / around
    if limits:
        what, share = max(limits.items(), key=lambda limit: limit[1])
        allowed = f"at most {1 - share:.3g}, so that on average {what} stay, as it takes"
        expect(1 - stack.dropout >= share - 1e-9, "client.dropout", stack.dropout, allowed)
