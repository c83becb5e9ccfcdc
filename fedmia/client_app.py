"""The ClientApp that ``flwr run`` and SuperNodes start: the one that simulated pools use too."""

import shlex
from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedmia.config import compose
from fedmia.preparation import prepare


@lru_cache(maxsize=4)
def _configured(overrides: str) -> ClientApp:
    return prepare(compose(shlex.split(overrides))).federation()()


class _Forwarding(ClientApp):
    """Hands every message on to the app of the experiment that its run config names."""

    def __call__(self, message: Message, context: Context) -> Message:
        return _configured(str(context.run_config.get("overrides", "")))(message, context)


app = _Forwarding()
"""Its run config's ``overrides`` name the experiment."""
