"""Rules that look at single updates cannot stand around a strategy that hides them."""

from flwr.serverapp.strategy import Strategy

from fedmia.errors import expect


def expect_open(inner: Strategy) -> None:
    """Raise ``ConfigError`` for a strategy that hides updates, with what can be checked there."""
    hidden = str(getattr(inner, "hides_updates", ""))
    allowed = (
        f"one that sees single updates: under {hidden} none can be checked; what can is a norm "
        f"bound at the clients (client/defenses=[{hidden}, clipping]), or sums of groups "
        "(strategy=grouped_sums)"
    )
    expect(not hidden, "inner", type(inner).__name__, allowed)
