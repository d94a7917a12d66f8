"""Define the Locust user, which plays whole conversations, one turn at a time, and records each request.

Locust patches the standard library unless told not to: only a load process may import this.
"""

import logging
from collections.abc import Sequence

import gevent
import msgspec
from locust import User, task
from locust.exception import StopUser

from serving_bench.harness.contracts import BegunRow, Conversation, Message, RequestRow, Turn
from serving_bench.harness.load.answer.chat import decode
from serving_bench.harness.load.answer.history import answer_message
from serving_bench.harness.load.client.http import Client, Endpoint
from serving_bench.harness.load.client.receive import Receiver
from serving_bench.harness.load.play.rows import id_of, request_row, unread_row
from serving_bench.harness.load.play.traffic import Traffic

FIRST_BACK_OFF_S = 0.2
LAST_BACK_OFF_S = 1.0


class RequestError(Exception):
    """A failed request as Locust's statistics group it."""


class ConversationUser(User):  # type: ignore[misc] # Locust's types are not followed
    """A user who plays the traffic's conversations until there are no more.

    A failed turn ends its conversation; a failed request beside the turn's own does not. In a closed loop the
    user waits after a failure, so that a dead server does not cause a busy loop.
    """

    abstract = True
    traffic: Traffic
    endpoint: Endpoint
    receiver: Receiver

    def on_start(self) -> None:
        self.number, self.free_ns = self.traffic.admit(gevent.getcurrent())
        self.clients = [Client(self.endpoint, self.receiver)]
        self.back_off_s = FIRST_BACK_OFF_S
        self.has_begun = False
        self.turns_left = 0

    def on_stop(self) -> None:
        """Close the connections. Locust calls this however the user ends."""
        for client in self.clients:
            client.close()

    @task  # type: ignore[untyped-decorator]
    def converse(self) -> None:
        try:
            self._wait_until(self.free_ns)
            begun = self.traffic.next_conversation()
            if begun is None or begun.conversation is None:
                raise StopUser
            if begun.due_ns is not None:  # it has an instant of its own, and does not follow the last one
                self.free_ns, self.has_begun = begun.due_ns, False
            self.turns_left = len(begun.conversation.turns)
            try:
                self._play(begun.number, begun.conversation)
            finally:
                self.traffic.conversation_ends(self.turns_left)
        except StopUser:
            raise
        except Exception as failure:
            # Locust would print it and go on, and the cell would look complete.
            logging.getLogger(__name__).error("a user failed", exc_info=failure)
            self.traffic.fail(failure)
            raise StopUser from failure

    def _play(self, number: int, conversation: Conversation) -> None:
        history: list[Message] = []
        for turn_number, turn in enumerate(conversation.turns):
            # Before its first turn a user has nothing to think about.
            think_ns = int(turn.think_time_s * 1e9) if self.has_begun else 0
            self.has_begun = True
            due_ns = self.free_ns + think_ns
            self._wait_until(due_ns)
            ended = self._turn(number, turn_number, conversation, history, due_ns)
            row, answer = ended[0]
            self.free_ns = max(each.end_ns for each, _ in ended)
            self.turns_left -= 1
            if row.outcome == "left":
                self.turns_left = 0
                return None
            if row.outcome != "ok":
                return self._back_off(row)
            self.back_off_s = FIRST_BACK_OFF_S
            history.extend((*turn.messages, answer))
        return None

    def _turn(
        self, number: int, turn_number: int, conversation: Conversation, history: list[Message], due_ns: int
    ) -> list[tuple[RequestRow, Message]]:
        """Send all requests of a turn at once, each on a connection of its own, and wait for the last."""
        requests = conversation.turns[turn_number].requests
        begun = [
            BegunRow(
                request_id=id_of(self.traffic.job.cell, number, turn_number, part),
                worker=self.traffic.worker,
                user=self.number,
                conversation=number,
                turn=turn_number,
                scheduled_ns=due_ns,
                max_tokens=turn.max_tokens,
                group=conversation.group,
                form=turn.form.name if turn.form else None,
                part=part,
                leave_after_s=turn.leave_after_s,
                turns=len(conversation.turns),
            )
            for part, turn in enumerate(requests)
        ]
        if len(requests) == 1:
            return [self._request(begun[0], requests[0], history)]
        while len(self.clients) < len(requests):
            self.clients.append(Client(self.endpoint, self.receiver))
        parts = [gevent.spawn(self._request, *each, history) for each in zip(begun, requests, strict=True)]
        try:
            gevent.joinall(parts, raise_error=True)
        except BaseException:
            gevent.killall(parts)  # bench ends this user; each of them still writes its row
            raise
        return [part.value for part in parts]

    def _request(self, begun: BegunRow, turn: Turn, history: Sequence[Message]) -> tuple[RequestRow, Message]:
        traffic, job, client = self.traffic, self.traffic.job, self.clients[begun.part]
        messages = [*history, *turn.messages]
        body = msgspec.json.encode(traffic.api.request(job.model, turn, messages, traffic.fields(turn)))
        traffic.begin(begun)
        exchange = client.stream(body, begun.request_id, job.load.timeout_s, turn.leave_after_s)
        key, keep_bytes = self.endpoint.key, job.load.keep_bytes
        try:
            decoded = decode(
                exchange.body, exchange.read_ns, exchange.read_ends, traffic.api, begun.max_tokens
            )
            row = request_row(begun, body, exchange, decoded, key, keep_bytes, traffic.api)
            answer = answer_message(turn, decoded, is_scripted=traffic.is_scripted)
        except Exception as wrong:  # a bug in bench's own code fails only this request
            logging.getLogger(__name__).warning("an answer could not be read", exc_info=wrong)
            row, answer = unread_row(begun, exchange, wrong, key), Message("assistant", "")
        traffic.record(row)
        self._tell_locust(row, len(exchange.body))
        return row, answer

    def _tell_locust(self, row: RequestRow, length: int) -> None:
        if row.outcome in ("cancelled", "left"):  # Locust's own users report nothing either when stopped
            return
        began_ns = row.scheduled_ns if row.sent_ns is None else row.sent_ns
        self.environment.events.request.fire(
            request_type="POST",
            name=self.endpoint.path,
            response_time=(row.end_ns - began_ns) / 1e6,
            response_length=length,
            exception=RequestError(row.outcome) if row.is_failed else None,
            context={},
        )

    def _back_off(self, row: RequestRow) -> None:
        if row.outcome == "cancelled":
            raise StopUser
        self.turns_left = 0  # the failure ended it, not bench
        if self.traffic.open_loop:  # others begin meanwhile anyway
            return
        self.free_ns = row.end_ns + int(self.back_off_s * 1e9)
        self.back_off_s = min(self.back_off_s * 2, LAST_BACK_OFF_S)

    def _wait_until(self, due_ns: int) -> None:
        if not self.traffic.wait_until(due_ns) or due_ns >= self.traffic.window.user_ends_ns(self.number):
            raise StopUser


def user_class(traffic: Traffic, endpoint: Endpoint, receiver: Receiver) -> type[ConversationUser]:
    fields = {"abstract": False, "traffic": traffic, "endpoint": endpoint, "receiver": receiver}
    return type("LoadUser", (ConversationUser,), fields)
