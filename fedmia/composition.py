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
``allow_evaluation`` (mod)
    Whether it lets clients evaluate a model, with metrics that are not hidden.
``parties`` (strategy and mod)
    Those who hold a share of every update at the server's side; how many a client expects.
``identities`` (mod)
    Of those who may take part (:class:`fedmia.secagg.identities.Identities`).
``check_asked`` (strategy)
    Refuses settings that cannot serve a round of so many clients.
``noted`` (strategy)
    What is allowed and yet must be known of it in one line; empty if there is nothing.
``hands_on`` (strategy)
    How many sums of groups it gives in a round to what it wraps, for which each is a client.
``linear`` (strategy)
    See :func:`strategies.linear.is_linear`.
"""

from dataclasses import fields

from fedmia import bounded, recipes
from fedmia.errors import ConfigError, expect
from fedmia.own_mods import adds_noise as adds_noise
from fedmia.own_mods import check_mods
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.protocol import Protocol
from fedmia.stack import Stack as Stack
from fedmia.stack import evaluations, wrapped


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
    check_parties(stack)
    check_identities(stack)
    check_evaluation(stack)
    check_noise(stack)
    check_grouped(stack)
    check_asked(stack)
    bounded.check(stack)
    recipes.check(stack)
    check_length(stack)
    check_weighting(stack)
    check_weights(stack)
    check_cohort(stack)
    check_threshold(stack)
    check_dropout(stack)


def notes(stack: Stack) -> list[str]:
    """Return what is allowed and yet must be known, a line each."""
    hides = bool(getattr(stack.strategy, "hides_updates", ""))
    found = [
        f"evaluation metrics are not masked ({key}={share})"
        for key, share in evaluations(stack)
        if hides
    ]
    found += [
        f"{key}.folder=null: the identities are derived from the seed, which protects nothing on "
        "real machines"
        for key, _ in stack.simulated
    ]
    if hasattr(stack.protocol, "metric_range") and not getattr(stack.protocol, "noise", None):
        found.append(
            f"metrics are clipped at ±{stack.protocol.metric_range} "
            "(strategy.protocol.metric_range)"
        )
    said = [(key, getattr(part, "noted", "")) for key, part in wrapped(stack.strategy)]
    found += [f"{key}: {line}" for key, line in said if line]
    if isinstance(stack.protocol, Protocol) and stack.dropout > stack.protocol.dropout:
        found.append(
            f"client.dropout={stack.dropout} is more than strategy.protocol.dropout="
            f"{stack.protocol.dropout}: rounds may be abandoned"
        )
    return found


def check_around(stack: Stack) -> None:
    """Refuse a strategy around one that hides updates: it would take words for updates."""
    outer = type(stack.strategy).__name__
    for key, inner in list(wrapped(stack.strategy))[1:]:
        hidden = str(getattr(inner, "hides_updates", ""))
        allowed = f"to be the outermost strategy: {outer} around it would take masked words for "
        allowed += f"updates; none can be checked under {hidden}, but norms be bounded at the "
        allowed += f"clients (client/defenses=[{hidden}, clipping]) and sums of groups be compared "
        allowed += "(strategy=grouped_sums)"
        expect(not hidden, key, type(inner).__name__, allowed)


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


def check_parties(stack: Stack) -> None:
    """Ask for as many parties on both sides."""
    ours = getattr(stack.strategy, "parties", None)
    for name, mod in stack.mods.items():
        theirs = getattr(mod, "parties", None)
        if ours is not None and theirs is not None:
            allowed = f"{len(ours)}, as strategy.parties"
            expect(theirs == len(ours), f"client.defenses.{name}.parties", theirs, allowed)


def check_identities(stack: Stack) -> None:
    """Ask that every client has one of the identities that are derived."""
    clients = len(stack.weights)
    for key, identities in stack.simulated:
        enough = identities.clients >= clients
        allowed = f"at least {clients}, one a client"
        expect(enough, f"{key}.clients", identities.clients, allowed)


def check_evaluation(stack: Stack) -> None:
    """Ask that the clients allow it where they are to evaluate."""
    for key, share in evaluations(stack):
        for name, mod in stack.mods.items():
            allows = getattr(mod, "allow_evaluation", True)
            allowed = f"0, or client.defenses.{name}.allow_evaluation=true: its metrics are in the "
            expect(allows, key, share, f"{allowed}open")


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


def check_grouped(stack: Stack) -> None:
    """Refuse noise behind sums of groups: it would hide what a group sends, not a client."""
    if not hasattr(stack.strategy, "hands_on"):
        return
    for key, part in list(wrapped(stack.strategy))[1:]:
        allowed = "a rule without noise of its own: its bound would be one of groups, not clients"
        expect(not adds_noise(part), key, type(part).__name__, allowed)


def check_asked(stack: Stack) -> None:
    """Ask each strategy whether it can serve a round in which all that are asked answer."""
    asked, so = stack.sampled, ""
    for key, part in wrapped(stack.strategy):
        if asked is not None and hasattr(part, "check_asked"):
            try:
                part.check_asked(asked)
            except ConfigError as error:
                raise ConfigError(f"{key}.{error}{so}") from None
        if groups := getattr(part, "hands_on", 0):
            asked, so = groups, f"; each of {groups} groups stands for a client"


def check_length(stack: Stack) -> None:
    """Ask that the noise fits the model."""
    if isinstance(stack.protocol, Protocol):
        try:
            stack.protocol.check(stack.length)
        except ConfigError as error:
            raise ConfigError(f"strategy.protocol.{error}") from None


def check_weights(stack: Stack) -> None:
    """Ask that every client's number of records fits under the mask."""
    most = getattr(stack.protocol, "max_weight", 1)
    if most == 1:
        return
    largest = max(stack.weights)
    allowed = f"at least {largest}, the records of client {list(stack.weights).index(largest)}"
    allowed += "; or 1, and all clients count the same"
    expect(largest <= most, "strategy.protocol.max_weight", most, allowed)


def check_weighting(stack: Stack) -> None:
    """Ask that the wrapped strategies weigh by what clients are weighed by under the mask."""
    if not getattr(stack.strategy, "hides_updates", ""):
        return
    for path, strategy in wrapped(stack.strategy):
        key = getattr(strategy, "weighted_by_key", "num-examples")
        allowed = "num-examples, the one weight that is summed with the updates"
        expect(key == "num-examples", f"{path}.weighted_by_key", key, allowed)


def check_cohort(stack: Stack) -> None:
    """Ask that all clients of a round fit into the sum."""
    cohort = getattr(stack.protocol, "cohort", None)
    if cohort is None or stack.sampled is None:
        return
    allowed = f"at least {stack.sampled}, the clients asked in a round"
    expect(stack.sampled <= cohort, "strategy.protocol.cohort", cohort, allowed)


def check_threshold(stack: Stack) -> None:
    """Ask that a round can be summed in which nobody is lost; the line names what was set."""
    protocol, sampling = stack.protocol, stack.sampling
    if sampling is None or not isinstance(protocol, Protocol | Cohort):
        return
    key, share, sampled = sampling
    smallest = 2 if isinstance(protocol, Cohort) else 4 if protocol.malicious_server else 3
    allowed = f"so much that at least {smallest} of {len(stack.weights)} clients are asked; "
    expect(sampled >= smallest, key, share, f"{allowed}{sampled} have no sum of others")
    asked = f"at most {sampled}, the clients asked in a round"
    if isinstance(protocol, Cohort):
        least = protocol.min_clients
        expect(least <= sampled, "strategy.protocol.min_clients", least, asked)
        return
    needed, least = protocol.shares_needed, protocol.fewest(sampled)
    others, reachable = f"the others of {sampled} clients asked in a round", needed < sampled
    if protocol.threshold is not None:
        allowed = f"at most {sampled - 1}, {others} (null with cohort={sampled} chooses one)"
        expect(reachable, "strategy.protocol.threshold", needed, allowed)
    elif protocol.neighbors is not None:
        allowed = f"at most {sampled - 1}, {others} (null with cohort={sampled} chooses them)"
        expect(reachable, "strategy.protocol.neighbors", protocol.neighbors, allowed)
    allowed = f"{sampled}, the clients asked in a round ({key}={share}); of more, {needed} others "
    expect(reachable, "strategy.protocol.cohort", protocol.cohort, f"{allowed}have to stay")
    honest = protocol.honest_shares
    allowed = f"at most {sampled - least + honest}, so that with those who may collude no more "
    allowed += f"have to stay than the {sampled} clients asked in a round"
    expect(least <= sampled, "strategy.protocol.noise.min_survivors", honest, allowed)


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
