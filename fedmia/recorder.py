"""What the adversary's vantage shows of each round, written as soon as it is known."""

from dataclasses import replace

from flwr.serverapp.strategy import Strategy

from fedmia.records import Observation
from fedmia.transcript import TranscriptWriter
from fedmia.vantages import GroupedServer, Vantage


class Recorder:
    """Write what a vantage shows of the rounds that are observed.

    Where the strategy uncovers sums of groups, a round is observed before they are known. Then it
    waits until :meth:`settle`, and the sums become its updates.

    Parameters
    ----------
    vantage
        Where the adversary stands.
    writer
        Of the transcript.
    strategy
        The outermost one. One that uncovers sums of groups has an attribute ``seen``: the round
        whose sums were uncovered last, and these as updates.
    """

    def __init__(self, vantage: Vantage, writer: TranscriptWriter, strategy: Strategy) -> None:
        self._vantage, self._writer, self._strategy = vantage, writer, strategy
        self._waiting: Observation | None = None

    def record(self, observation: Observation) -> None:
        """Take a round that was observed."""
        self.settle()
        if isinstance(self._vantage, GroupedServer):
            self._waiting = observation
        else:
            self._write(observation)

    def settle(self) -> None:
        """Write the round that waits, if one does, with the sums uncovered since."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        server_round, sums = getattr(self._strategy, "seen", (0, ()))
        self._write(replace(waiting, updates=sums if server_round == waiting.round else ()))

    def _write(self, observation: Observation) -> None:
        if seen := self._vantage.view(observation):
            self._writer.append(seen)
