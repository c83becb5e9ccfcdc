"""The client that does what it is asked.

H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient
Learning of Deep Networks from Decentralized Data", AISTATS 2017, Algorithm 1, ClientUpdate.
"""

from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from clients.base import Client
from fedmia.arrays import to_params, to_record
from fedmia.errors import expect
from fedmia.records import Examples
from fedmia.site import Site
from fedmia.training import accuracy


class DroppedOutError(RuntimeError):
    """The client is away in this round."""


@dataclass(frozen=True)
class Honest(Client):
    """Train on the global model and send back the result.

    Parameters
    ----------
    dropout
        Probability with which the client fails to answer a round, drawn per client and round.
    """

    dropout: float = 0.0

    def __post_init__(self) -> None:
        expect(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")

    def train(self, message: Message, context: Context, site: Site) -> Message:
        """Return the locally trained model, its mean loss and the number of examples.

        Raises
        ------
        DroppedOutError
            With probability ``dropout``.
        """
        (name, arrays), server_round = _read(message)
        if self.dropout and site.rng("dropout", server_round).random() < self.dropout:
            raise DroppedOutError("away in this round (client.dropout)")
        site.model.load(to_params(arrays))
        loss = site.fit(server_round)
        metrics = MetricRecord({"num-examples": len(site.y), "train-loss": loss})
        content = RecordDict({name: to_record(site.model.view()), "metrics": metrics})
        return Message(content, reply_to=message)

    def evaluate(self, message: Message, context: Context, site: Site) -> Message:
        """Return the global model's accuracy on the client's own records."""
        (_, arrays), _ = _read(message)
        site.model.load(to_params(arrays))
        examples = Examples(site.x.cpu().numpy(), site.y.cpu().numpy())
        metrics = MetricRecord(
            {"num-examples": len(examples), "accuracy": accuracy(site.model.module, examples)}
        )
        return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _read(message: Message) -> tuple[tuple[str, ArrayRecord], int]:
    """Return the one array record of a message with its name, and the server round."""
    (arrays,) = message.content.array_records.items()
    configs: list[ConfigRecord] = list(message.content.config_records.values())
    rounds = [c["server-round"] for c in configs if "server-round" in c]
    return arrays, int(str(rounds[0])) if rounds else 0
