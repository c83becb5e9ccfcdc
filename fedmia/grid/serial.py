"""All clients in this process, one after the other: the pool that explains failures."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import Message
from flwr.serverapp import Grid

from fedmia.errors import expect
from fedmia.grid.base import ClientAppFactory, Clients, LocalGrid, Pool, T, refuse


@dataclass(frozen=True, kw_only=True)
class Serial(Pool):
    """Run clients in process: the debugging twin of :class:`fedmia.grid.ray.Ray`.

    Parameters
    ----------
    num_threads
        Torch threads while clients run; 1 gives the same bytes as Ray actors with one CPU each.
    fail_fast
        Raise what a client raises, with the client and the round in a note, instead of going on
        without its reply.
    timeout_s
        Checked after each answer: a client in this process cannot be interrupted.
    """

    num_threads: int = 1
    fail_fast: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.num_threads >= 1, "num_threads", self.num_threads, "at least 1")

    def run(
        self,
        client_app: ClientAppFactory,
        num_clients: int,
        seed: int,
        main: Callable[[Grid], T],
    ) -> T:
        """Run ``main`` over clients in this process."""
        return main(_SerialGrid(self, client_app, num_clients, seed))


class _SerialGrid(LocalGrid):
    def __init__(
        self, pool: Serial, client_app: ClientAppFactory, num_clients: int, seed: int
    ) -> None:
        super().__init__(num_clients, seed)
        self._pool = pool
        self._clients = Clients(client_app, num_clients)

    def execute(self, wave: Sequence[Message], timeout: float | None) -> list[Message]:
        before = torch.get_num_threads()
        torch.set_num_threads(self._pool.num_threads)
        try:
            return [self._answer(message) for message in wave]
        finally:
            torch.set_num_threads(before)

    def _answer(self, message: Message) -> Message:
        start = time.monotonic()
        partition = self.partition_of(message)
        reply = self._clients.answer(message, partition, fail_fast=self._pool.fail_fast)
        limit = self._pool.timeout_s
        if limit is not None and time.monotonic() - start > limit:
            return refuse(message, f"client {partition}: exceeded pool.timeout_s={limit}")
        return reply.message
