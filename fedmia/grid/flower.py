"""Flower's stock Ray simulation, unchanged: the reference that the other pools are measured by."""

import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedmia.errors import expect
from fedmia.grid.base import ClientAppFactory, Pool, T, refuse, round_of


@dataclass(frozen=True, kw_only=True)
class Flower(Pool):
    """Run clients with ``flwr.simulation.run_simulation``.

    Node ids are random and replies arrive in any order, so runs are not reproducible to the
    byte. ``timeout_s`` is not enforced by this runtime and must be null.

    Parameters
    ----------
    num_cpus, num_gpus
        Reserved for each client while it runs.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        expect(self.num_cpus > 0, "num_cpus", self.num_cpus, "more than 0")
        expect(self.num_gpus >= 0, "num_gpus", self.num_gpus, "at least 0")
        expect(
            self.timeout_s is None,
            "timeout_s",
            self.timeout_s,
            "null: Flower's simulation has no time limit for a client (pool=ray has one)",
        )

    def run(
        self,
        client_app: ClientAppFactory,
        num_clients: int,
        seed: int,
        main: Callable[[Grid], T],
    ) -> T:
        """Run ``main`` as the ServerApp of a stock simulation."""
        from flwr.simulation import run_simulation

        outcome: list[T] = []
        failure: list[BaseException] = []
        server_app = ServerApp()

        @server_app.main()
        def _main(grid: Grid, context: Context) -> None:
            try:
                outcome.append(main(grid))
            except BaseException as error:
                failure.append(error)

        with tempfile.TemporaryDirectory(prefix="fedmia-") as folder:
            file = Path(folder) / "client_app.pickle"
            _save(client_app, file)
            run_simulation(
                server_app=server_app,
                client_app=_Light(str(file)),
                num_supernodes=num_clients,
                backend_config={
                    "client_resources": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
                },
            )
        if failure:
            raise failure[0]
        return outcome[0]


def _save(client_app: ClientAppFactory, file: Path) -> None:
    import ray.cloudpickle

    dumps: Callable[[object], bytes] = ray.cloudpickle.dumps
    file.write_bytes(pickle.dumps((sys.path, dumps(client_app))))


@lru_cache(maxsize=1)
def _load(file: str) -> ClientApp:
    path, dumped = pickle.loads(Path(file).read_bytes())
    sys.path += [p for p in path if p not in sys.path]
    factory: ClientAppFactory = pickle.loads(dumped)
    return factory()


class _Light(ClientApp):
    """An app that loads the clients once per process: the stock pool pickles it per message."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file

    def __call__(self, message: Message, context: Context) -> Message:
        try:
            return _load(self._file)(message, context)
        except Exception as error:
            partition = context.node_config["partition-id"]
            where = f"client {partition}, round {round_of(message)}"
            return refuse(message, f"{where}: {type(error).__name__}: {error}")
