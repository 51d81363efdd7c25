"""A TCP proxy between clients and one broker that can hold, delay and cut single requests by their kind.

Kafka's framing: a request is int32 length, int16 api key, int16 api version, int32 correlation id, ...; a response is
int32 length, int32 correlation id, ... Responses come in the order of the requests of their connection.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

HOST = "127.0.0.1"
PRODUCE, ADD_PARTITIONS, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 24, 25, 26, 28
NAMES = {
    PRODUCE: "Produce",
    ADD_PARTITIONS: "AddPartitionsToTxn",
    ADD_OFFSETS: "AddOffsetsToTxn",
    END_TXN: "EndTxn",
    TXN_OFFSET_COMMIT: "TxnOffsetCommit",
}
_LENGTH = struct.Struct(">i")
_HEAD = struct.Struct(">hh")
_STRING = struct.Struct(">h")
_HEADER_BYTES = 12
"""Length, api key, version and correlation id."""
_PLAIN_VERSIONS = {ADD_PARTITIONS: 2, ADD_OFFSETS: 2, END_TXN: 2}
"""Up to this version the body of the request begins with the transactional id, length first."""
ANSWERS_S_MAX = 5.0
"""How long the broker's answers are waited for when a client has closed: a request that was held still counts."""
BUFFER_BYTES = 2**20


@dataclass(eq=False)
class Rule:
    """What becomes of the next request of a kind; then the rule is spent.

    Attributes:
        caught: Set when a request has met the rule.
    """

    api_key: int
    hold_s: float
    """The request reaches the broker after so long, or at `release`."""
    on_response: bool = False
    """Hold the broker's answer instead."""
    cut: bool = False
    """Close the client's connection instead, the request undelivered (or delivered, with `on_response`)."""
    until: int | None = None
    """Release when a request of this kind, of the same transactional id, was passed on after this one was caught."""
    caught: threading.Event = field(default_factory=threading.Event)
    owner: str = ""
    """Transactional id of the request that was caught, where it has one that is known."""
    _release: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """Stands between `port`, which it takes, and a broker's port. Runs in a thread of its own.

    Args:
        broker_port: Where connections go on to, opened anew for each.
        port: Where it listens.
    """

    def __init__(self, broker_port: int, port: int) -> None:
        self.port = port
        self.seen: Counter[tuple[int, int]] = Counter()
        """Requests by (api key, version)."""
        self._broker_port = broker_port
        self._rules: list[Rule] = []
        self._held: list[Rule] = []
        self._connections: set[asyncio.StreamWriter] = set()
        self._isolated: dict[str, asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._run(self._listen).result(60)

    def stop(self) -> None:
        """Cut every connection and end."""
        if not self._thread.is_alive():
            return
        self._run(self._end_all).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(self, rule: Rule) -> Rule:
        """Let a rule wait for its request."""
        self._loop.call_soon_threadsafe(self._rules.append, rule)
        return rule

    def release(self, rule: Rule) -> None:
        """Let what the rule holds go on at once; if it has caught nothing, forget the rule."""
        self._loop.call_soon_threadsafe(self._forget, rule)

    def isolate(self, client_id: str) -> None:
        """Let nothing pass from or to a client any more, as when the network falls apart; `heal` lets it go on."""
        self._loop.call_soon_threadsafe(lambda: self._isolated.setdefault(client_id, asyncio.Event()))

    def heal(self, client_id: str) -> None:
        """What was held is delivered, late, and what comes passes."""
        self._loop.call_soon_threadsafe(lambda: self._isolated.pop(client_id, asyncio.Event()).set())

    def cut_all(self) -> None:
        """Close every client's connection."""
        self._run(self._cut_all).result(60)

    def _run(self, step: Callable[[], object]) -> Future[None]:
        async def within() -> None:
            found = step()
            if asyncio.iscoroutine(found):
                await found

        return asyncio.run_coroutine_threadsafe(within(), self._loop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port, limit=BUFFER_BYTES)

    def _cut_all(self) -> None:
        for writer in list(self._connections):
            writer.transport.abort()

    async def _end_all(self) -> None:
        self._cut_all()
        if self._server is not None:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _forget(self, rule: Rule) -> None:
        if rule in self._rules:
            self._rules.remove(rule)
        rule._release.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(HOST, self._broker_port, limit=BUFFER_BYTES)
        except OSError:
            writer.transport.abort()
            return
        self._connections.add(writer)
        with suppress(asyncio.CancelledError):  # asyncio would report the end of the proxy as an error
            await _Connection(self, reader, writer, *upstream).run()
        self._connections.discard(writer)

    def match(self, api_key: int, owner: str) -> Rule | None:
        """The rule that a request meets, taken off the list."""
        rule = next((one for one in self._rules if one.api_key == api_key), None)
        if rule is not None:
            self._rules.remove(rule)
            rule.owner = owner
            if rule.until is not None:
                self._held.append(rule)
        return rule

    async def reachable(self, client_id: str) -> None:
        """Return once the network of a client is whole."""
        while (isolated := self._isolated.get(client_id)) is not None:
            await isolated.wait()

    def passed(self, api_key: int, owner: str) -> None:
        """Release what waits for a request of this kind."""
        for rule in [one for one in self._held if one.until == api_key and one.owner == owner]:
            self._held.remove(rule)
            rule._release.set()


class _Connection:
    """One client's connection, and the one to the broker that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        broker: asyncio.StreamReader,
        to_broker: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client, self._to_client = client, to_client
        self._broker, self._to_broker = broker, to_broker
        self._client_id = ""
        self._waiting: deque[Rule | None] = deque()
        """What becomes of the answers to the requests under way, in order."""

    async def run(self) -> None:
        """Pass requests and answers on until one side is gone."""
        answers = asyncio.create_task(self._answers())
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._requests()
            await self._await_answers(answers)
        finally:
            answers.cancel()
            with suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
                await answers
            self._to_broker.close()
            self._to_client.close()

    async def _requests(self) -> None:
        while True:
            frame = await _frame(self._client)
            api_key, version = _HEAD.unpack_from(frame, _LENGTH.size)
            self._client_id = _string(frame, _HEADER_BYTES)[0]
            await self._proxy.reachable(self._client_id)
            self._proxy.seen[api_key, version] += 1
            owner = transactional_id(frame)
            rule = self._proxy.match(api_key, owner)
            if rule is not None and not rule.on_response:
                await _hold(rule)
                if rule.cut:
                    self._to_client.transport.abort()
                    return
            self._waiting.append(rule if rule is not None and rule.on_response else None)
            self._to_broker.write(frame)
            await self._to_broker.drain()
            self._proxy.passed(api_key, owner)

    async def _answers(self) -> None:
        try:
            while True:
                frame = await _frame(self._broker)
                await self._proxy.reachable(self._client_id)
                rule = self._waiting.popleft() if self._waiting else None
                if rule is not None:
                    await _hold(rule)
                    if rule.cut:
                        self._to_client.transport.abort()
                if not self._to_client.is_closing():
                    self._to_client.write(frame)
                    await self._to_client.drain()
        finally:
            self._to_client.transport.abort()

    async def _await_answers(self, answers: asyncio.Task[None]) -> None:
        """The client is gone: what it has sent reaches the broker all the same, as on a slow network."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_S_MAX):
                while self._waiting and not answers.done():
                    await asyncio.sleep(0.02)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(_LENGTH.size)
    return head + await reader.readexactly(_LENGTH.unpack(head)[0])


def transactional_id(frame: bytes) -> str:
    """The transactional id of a request, where its kind and version begin with it plainly; else nothing."""
    api_key, version = _HEAD.unpack_from(frame, _LENGTH.size)
    if version > _PLAIN_VERSIONS.get(api_key, -1):
        return ""
    _, place = _string(frame, _HEADER_BYTES)  # the client's id
    return _string(frame, place)[0]


def _string(frame: bytes, place: int) -> tuple[str, int]:
    """A string at a place, and the place after it."""
    length = _STRING.unpack_from(frame, place)[0]
    end = place + _STRING.size + max(0, length)
    return frame[place + _STRING.size : end].decode(errors="replace"), end


async def _hold(rule: Rule) -> None:
    rule.caught.set()
    with suppress(TimeoutError):
        await asyncio.wait_for(rule._release.wait(), rule.hold_s)


def kinds(counted: Iterable[tuple[int, int]]) -> dict[str, set[int]]:
    """The versions seen of each kind that has a name here."""
    found: dict[str, set[int]] = {}
    for api_key, version in counted:
        if api_key in NAMES:
            found.setdefault(NAMES[api_key], set()).add(version)
    return found
