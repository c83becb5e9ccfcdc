"""What every client is: an answer to each kind of Flower message."""

from abc import ABC, abstractmethod

from flwr.app import Context, Message

from fedmia.site import Site


class Client(ABC):
    """How a client answers the server.

    Subclasses are frozen dataclasses whose fields are public settings; data, model and
    randomness arrive in the :class:`~fedmia.site.Site`. State that must outlive a message
    belongs in ``context.state``: on real nodes each message starts a fresh process.
    """

    @abstractmethod
    def train(self, message: Message, context: Context, site: Site) -> Message:
        """Answer a ``train`` message."""

    @abstractmethod
    def evaluate(self, message: Message, context: Context, site: Site) -> Message:
        """Answer an ``evaluate`` message."""
