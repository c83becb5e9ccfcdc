"""Clients on Ray: where actors are started, and how many there is room for."""

import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid

from fedmia.errors import ConfigError, expect
from fedmia.grid.actors import ActorGrid
from fedmia.grid.base import ClientAppFactory, Pool, T

_KNOCK_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Ray(Pool):
    """Run clients on Ray actors, here or on an existing cluster.

    Parameters
    ----------
    num_cpus, num_gpus
        Reserved for each actor; torch uses as many threads as whole CPUs.
    num_actors
        How many actors share the clients; ``None`` takes as many as the cluster has room for.
    address
        ``None`` starts Ray on this machine, ``"auto"`` or ``"host:port"`` joins a cluster.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    num_actors: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.num_cpus > 0, "num_cpus", self.num_cpus, "more than 0")
        expect(self.num_gpus >= 0, "num_gpus", self.num_gpus, "at least 0")
        expect(
            self.num_actors is None or self.num_actors >= 1,
            "num_actors",
            self.num_actors,
            "null or at least 1",
        )

    def run(
        self,
        client_app: ClientAppFactory,
        num_clients: int,
        seed: int,
        main: Callable[[Grid], T],
    ) -> T:
        """Run ``main`` over actors; Ray itself stays up for the next run of this process."""
        start_ray(self.address)
        grid = ActorGrid(
            self.num_cpus,
            self.num_gpus,
            self.timeout_s,
            client_app,
            num_clients,
            seed,
            self._actors(num_clients),
        )
        try:
            return main(grid)
        finally:
            grid.close()

    def _actors(self, num_clients: int) -> int:
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = int(resources.get("CPU", 0) / self.num_cpus)
        if self.num_gpus:
            room = min(room, int(resources.get("GPU", 0) / self.num_gpus))
        needed = self.num_actors or 1
        if room < needed:
            raise ConfigError(
                f"pool.num_cpus={self.num_cpus}, pool.num_gpus={self.num_gpus}: expected room for "
                f"{needed} actor(s) in CPU={resources.get('CPU', 0):g}, "
                f"GPU={resources.get('GPU', 0):g}"
            )
        return min(num_clients, self.num_actors or room)


def start_ray(address: str | None) -> None:
    """Start Ray or join a cluster, unless this process already has one.

    Raises
    ------
    ConfigError
        If nothing answers at ``address``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if address is not None:
        _knock(address)
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        options |= {"include_dashboard": False, "num_cpus": cpus}
        # A cluster named by the environment is not what `address: null` asks for.
        options["address"] = "local"
    else:
        options["address"] = address
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ray.init(**options)
        except (ConnectionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"pool.address={address}: expected a running Ray cluster ({reason})"
            ) from None


def _knock(address: str) -> None:
    """Find out at once that nobody listens there; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # auto, or a name that Ray knows
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"pool.address={address}: expected a running Ray cluster ({error})"
        ) from None
