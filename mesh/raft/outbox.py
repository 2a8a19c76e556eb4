"""Messages on their way out, split by what must be durable before they leave.

A *promise* (vote, vote request, append reply, installed snapshot) is true only
once this member's own state is on disk, so it leaves after the durability of
the Ready that carries it. A *statement* (append, append heartbeat and its reply,
chunk) binds nobody, provided that the term it is made in can not be forgotten: it
leaves at once if that term is durable, and otherwise with the promises.
A *question* (pre-vote and its answer) changes nothing anywhere and never waits.
"""

from mesh.ids import Term
from mesh.raft.model import AppendReply, Message


class Outbox:
    """The messages for the next Ready.

    Bound: one answer per message stepped in, plus what the leader's flow
    control lets through.
    """

    def __init__(self, durable_term: Term) -> None:
        #: The term in the newest hard state known to be on disk.
        self.durable_term = durable_term
        self._at_once: list[Message] = []
        self._after_durable: list[Message] = []

    def promise(self, message: Message) -> None:
        self._after_durable.append(message)

    def state(self, message: Message) -> None:
        if message.term <= self.durable_term:
            self._at_once.append(message)
        else:
            self._after_durable.append(message)

    def ask(self, message: Message) -> None:
        self._at_once.append(message)

    def withdraw(self) -> None:
        """The term is another: entries acknowledged in an earlier one, and not told yet, never are.

        They may be replaced before they are on disk; then the acknowledgement would be a lie.
        """
        self._after_durable = [each for each in self._after_durable if not isinstance(each, AppendReply)]

    def __bool__(self) -> bool:
        return bool(self._at_once or self._after_durable)

    def take(self) -> tuple[list[Message], list[Message]]:
        """(at once, after durable); both are empty afterwards."""
        taken = self._at_once, self._after_durable
        self._at_once, self._after_durable = [], []
        return taken
