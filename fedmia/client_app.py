"""The ClientApp that ``flwr run`` and SuperNodes start: the one that simulated pools use too."""

import shlex
from functools import lru_cache

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedmia.config import compose
from fedmia.stage import prepare


@lru_cache(maxsize=4)
def _configured(overrides: str) -> ClientApp:
    return prepare(compose(shlex.split(overrides))).federation()()


def _forward(message: Message, context: Context) -> Message:
    return _configured(str(context.run_config.get("overrides", "")))(message, context)


app = ClientApp()
"""Its run config's ``overrides`` name the experiment."""

app.train()(_forward)
app.evaluate()(_forward)
app.query("partition")(_forward)
