"""Which parts that clip and add noise fit together, beside :mod:`fedmia.composition`.

A part says what it does by attributes of its own:

``adds_noise`` (strategy or mod)
    Whether it adds noise for which it keeps an account.
``clip_by`` (strategy)
    ``clients`` if it relies on a mod that bounds the norm of each update.
``clips_updates`` (mod)
    Whether it bounds that norm to ``clip``, in the way that ``clipping`` names.
``changes_updates`` (mod)
    Whether it sends another update in the place of one, which may be larger.
``after_training`` (mod)
    Whether it changes what was trained by the records.
``replaces_claims`` (mod)
    Whether its claims stand in for the strategy's, which they are composed of.
``voids_epsilon`` (mod or strategy)
    Of a mod, whether no ε can be given because of it; of a strategy, why those inside it can give
    none, empty if they can.
``needs_open_updates`` (mod)
    Whether the server must see what single clients send.
``check_model`` (strategy or mod)
    Refuses a model that it cannot serve.
``check_records`` (mod)
    Refuses numbers of records, one a client, with which a client could take part in no round.
``held_out`` (mod)
    How many of so many records it keeps from those that stand before it in the list.
``shares`` (mod)
    Settings that the strategy it belongs to has as well, with the same values.
"""

import math
from collections.abc import Iterator

from flwr.serverapp.strategy import Strategy

from fedmia.errors import ConfigError, expect
from fedmia.privacy.accounting import Account, Neighbours
from fedmia.privacy.budget import Budget
from fedmia.stack import Stack, wrapped


def check(stack: Stack) -> None:
    """Refuse a stack in which noise would not be what is promised of it.

    Raises
    ------
    ConfigError
        In one line, which part is not allowed and why.
    """
    check_state(stack)
    check_statistics(stack)
    check_models(stack)
    check_shared(stack)
    check_records(stack)
    check_once(stack)
    check_hidden(stack)
    check_bound(stack)
    check_changed(stack)
    check_trained(stack)
    check_composed(stack)


def check_state(stack: Stack) -> None:
    """Refuse integers in the model's state: no norm bounds them and no noise hides them."""
    parts: list[object] = [part for _, part in wrapped(stack.strategy)]
    parts += stack.mods.values()
    private = any(getattr(p, "adds_noise", False) or _clips(p) for p in parts)
    if stack.model is None or not private:
        return
    for name, value in stack.model.state_dict().items():
        layer, _, buffer = name.rpartition(".")
        kind = type(stack.model.get_submodule(layer)).__name__
        allowed = (
            "a model whose state is all floating under differential privacy; "
            f"'{layer}' ({kind}) keeps '{buffer}' as {str(value.dtype).removeprefix('torch.')}"
        )
        allowed += "; use GroupNorm instead" if "BatchNorm" in kind else ""
        expect(value.is_floating_point(), "model", type(stack.model).__name__, allowed)


def check_statistics(stack: Stack) -> None:
    """Refuse running variances beside a mod whose change of them may leave them below zero."""
    layers = [] if stack.model is None else [*stack.model.modules()]
    normalising = [one for one in layers if getattr(one, "running_var", None) is not None]
    changing = [n for n, mod in stack.mods.items() if getattr(mod, "changes_updates", False)]
    if normalising and changing:
        kind = type(normalising[0]).__name__
        allowed = f"no {kind} beside {changing[0]}, which may make a running variance negative; "
        expect(False, "model", type(stack.model).__name__, f"{allowed}use GroupNorm instead")


def check_models(stack: Stack) -> None:
    """Ask each part that cares whether it can serve the model."""
    parts: list[tuple[str, object]] = [*wrapped(stack.strategy)]
    parts += [(f"client.defenses.{name}", mod) for name, mod in stack.mods.items()]
    for key, part in parts:
        if stack.model is not None and hasattr(part, "check_model"):
            try:
                part.check_model(stack.model)
            except ConfigError as error:
                apart = ": " if str(error).startswith("model=") else "."
                raise ConfigError(f"{key}{apart}{error}") from None


def check_shared(stack: Stack) -> None:
    """Ask that a mod and the strategy that it belongs to have the same settings in common."""
    parts = {
        str(getattr(part, "needs_mod", "")): (key, part) for key, part in wrapped(stack.strategy)
    }
    for name, mod in stack.mods.items():
        for setting in getattr(mod, "shares", ()) if name in parts else ():
            key, part = parts[name]
            ours, theirs = getattr(part, setting), getattr(mod, setting)
            allowed = f"{ours}, as {key}.{setting}"
            expect(ours == theirs, f"client.defenses.{name}.{setting}", theirs, allowed)


def check_records(stack: Stack) -> None:
    """Ask each mod that cares whether the records left to it will do, the innermost first."""
    left, holding = list(stack.weights), list[str]()
    for name, mod in reversed([*stack.mods.items()]):
        if hasattr(mod, "check_records"):
            try:
                mod.check_records(left)
            except ConfigError as error:
                beside = f" beside what {', '.join(holding)} holds out" if holding else ""
                raise ConfigError(f"client.defenses.{name}.{error}{beside}") from None
        if hasattr(mod, "held_out"):
            left = [n - mod.held_out(n) for n in left]
            holding.append(name)


def check_once(stack: Stack) -> None:
    """Refuse one noisy strategy in another: the outer one would bound noise, not clients."""
    noisy = [(key, part) for key, part in _noisy(stack)]
    for key, part in noisy[1:]:
        allowed = f"one strategy that adds noise; {type(noisy[0][1]).__name__} does"
        expect(False, key, type(part).__name__, allowed)


def check_hidden(stack: Stack) -> None:
    """Ask for what noise on a sum takes where the server sees the sum alone."""
    hidden = str(getattr(stack.strategy, "hides_updates", ""))
    if not hidden:
        return
    for key, part in _noisy(stack):
        by, drawn = getattr(part, "clip_by", "clients"), getattr(part, "sampling", None)
        sampling = getattr(drawn, "kind", "all")
        allowed = f"clients under {hidden}: the server sees no update that it could clip"
        expect(by == "clients", f"{key}.clip_by", by, allowed)
        allowed = f"fixed or all under {hidden}: a round of too few would be given up, for all to "
        expect(sampling != "poisson", f"{key}.sampling", sampling, f"{allowed}see")
    for name, mod in stack.mods.items():
        opened = getattr(mod, "needs_open_updates", False)
        allowed = f"no {name} under {hidden}, which keeps from the server what it has to see"
        expect(not opened, "client/defenses", f"[{', '.join(stack.mods)}]", allowed)


def check_bound(stack: Stack) -> None:
    """Ask for one mod that bounds updates as the strategy says, with nothing after it."""
    bounding = {name: mod for name, mod in stack.mods.items() if _clips(mod)}
    shown = f"[{', '.join(stack.mods)}]"
    for key, part in _noisy(stack):
        if getattr(part, "clip_by", "server") != "clients":
            continue
        allowed = f"one mod that clips, as clipping: {key}.clip_by=clients relies on it"
        expect(len(bounding) == 1, "client/defenses", shown, allowed)
        ((name, mod),) = bounding.items()
        for setting in ("clip", "clipping"):
            if hasattr(part, setting) and hasattr(mod, setting):
                ours, theirs = getattr(part, setting), getattr(mod, setting)
                allowed = f"{ours}, as {key}.{setting}"
                expect(ours == theirs, f"client.defenses.{name}.{setting}", theirs, allowed)
        outer = list(stack.mods)[: list(stack.mods).index(name)]
        changing = [o for o in outer if not getattr(stack.mods[o], "needs_strategy", "")]
        allowed = f"{name} outside of {', '.join(changing)}, which may make clipped updates larger"
        expect(not changing, "client/defenses", shown, allowed)


def check_changed(stack: Stack) -> None:
    """Ask that a mod that bounds updates does so after those that may make them larger.

    What adds noise of its own (``local_dp``) may stand anywhere: its promise outlasts any change.
    """
    shown, names = f"[{', '.join(stack.mods)}]", list(stack.mods)
    for name in [name for name, mod in stack.mods.items() if _clips(mod)]:
        for outer in names[: names.index(name)]:
            changes = bool(getattr(stack.mods[outer], "changes_updates", False))
            allowed = f"{name} outside of {outer}, which may make clipped updates larger"
            expect(not changes, "client/defenses", shown, allowed)


def check_trained(stack: Stack) -> None:
    """Refuse a change by the records beside steps that make them private."""
    shown = f"[{', '.join(stack.mods)}]"
    private = [name for name, mod in stack.mods.items() if getattr(mod, "own_steps", False)]
    for name, mod in stack.mods.items() if private else ():
        changes = bool(getattr(mod, "after_training", False))
        allowed = f"no {name} beside {private[0]}: it would change by the records what hides them"
        expect(not changes, "client/defenses", shown, allowed)


def check_composed(stack: Stack) -> None:
    """Ask for an account that a mod's releases can be composed with, where its claim is both."""
    for name, mod in stack.mods.items():
        if not getattr(mod, "replaces_claims", False):
            continue
        beside = f"beside client.defenses.{name}"
        for key, part in _noisy(stack):
            account, budget = getattr(part, "account", None), getattr(part, "budget", None)
            allowed = f"one with fresh noise in every round, as dp_central, {beside}, "
            allowed += "whose releases are composed with it"
            fresh = isinstance(account, Account) and isinstance(budget, Budget)
            expect(fresh, key, type(part).__name__, allowed)
            assert isinstance(account, Account)
            assert isinstance(budget, Budget)
            same = Neighbours.REPLACE_ONE
            allowed = f"{same} {beside}, which shows who takes part"
            expect(account.neighbours == same, f"{key}.neighbours", account.neighbours, allowed)
            allowed = f"null or inf, and noise_multiplier, {beside}: the budget leaves out what "
            allowed += "its releases cost"
            expect(budget.epsilon in (None, math.inf), f"{key}.epsilon", budget.epsilon, allowed)


def _clips(part: object) -> bool:
    return bool(getattr(part, "clips_updates", False))


def _noisy(stack: Stack) -> Iterator[tuple[str, Strategy]]:
    for key, part in wrapped(stack.strategy):
        if getattr(part, "adds_noise", False):
            yield key, part
