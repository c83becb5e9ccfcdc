"""Which defences of training fit together and fit the records, beside :mod:`fedmia.composition`.

A part says what it does by attributes of its own:

``regularizes`` (mod)
    Whether it adds to the steps of local SGD (:mod:`fedmia.regularized`).
``own_steps`` (mod)
    Whether it takes steps of its own in their place.
``check_input`` (mod)
    Refuses records of a shape that it cannot train on.
"""

from fedmia.errors import ConfigError, expect
from fedmia.site import TrainingDefense
from fedmia.stack import Stack


def check(stack: Stack) -> None:
    """Refuse a defence of which nothing would come, or that cannot train on the records.

    Raises
    ------
    ConfigError
        In one line, which part is not allowed and why.
    """
    check_steps(stack)
    check_input(stack)


def check_steps(stack: Stack) -> None:
    """Ask that what adds to steps of SGD finds them: not replaced, and wrapped from outside."""
    shown, names = f"[{', '.join(stack.mods)}]", list(stack.mods)
    training = [name for name, mod in stack.mods.items() if isinstance(mod, TrainingDefense)]
    adding = [name for name in training if getattr(stack.mods[name], "regularizes", False)]
    for other in [name for name in training if name not in adding]:
        for name in adding:
            allowed = f"no {name} beside {other}, whose steps it cannot add to"
            own = getattr(stack.mods[other], "own_steps", False)
            expect(not own, "client/defenses", shown, allowed)
            allowed = f"{other} before {name}, whose steps it is to have inside"
            expect(names.index(other) < names.index(name), "client/defenses", shown, allowed)


def check_input(stack: Stack) -> None:
    """Ask each mod that depends on it whether records of this shape will do."""
    for name, mod in stack.mods.items():
        if stack.input_shape is not None and hasattr(mod, "check_input"):
            try:
                mod.check_input(stack.input_shape)
            except ConfigError as error:
                raise ConfigError(f"client.defenses.{name}.{error}") from None
