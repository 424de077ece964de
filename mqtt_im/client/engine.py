"""Drives the session: carries out what it wants done, and tells it what happens. All of it runs on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from . import clock
from .core.backoff import Backoff
from .core.effects import (
    Acknowledge,
    Answered,
    Drop,
    Effect,
    Failed,
    Happened,
    Lost,
    Mark,
    Online,
    Publish,
    Refuse,
    Reply,
    Save,
    Subscribe,
    Unreadable,
    Unsubscribe,
    Watched,
)
from .core.entries import Entry
from .core.inbox import Marks
from .core.liveness import Liveness, Path
from .core.session import Session
from .network.addresses import Address
from .network.connector import REFUSALS, Connector, NotAccepted
from .network.link import Accepted, Link
from .states import State
from .store.writer import Writer

_log = logging.getLogger(__name__)

TAKEN_OVER: Final = 0x8E
_LONGEST_NAP_S: Final = 60.0
"""Timers of the loop stand still while the machine sleeps, so none is longer than this."""


class Engine:
    """Connects, and connects again, until it is stopped. What comes of it is told by the callbacks."""

    def __init__(
        self,
        session: Session,
        writer: Writer,
        connector: Connector,
        *,
        keepalive: float,
        connect_timeout: float,
        paths: dict[str, Path],
    ) -> None:
        self.session = session
        self.state = State("connecting")
        self.on_state: Callable[[State], None] = lambda _state: None
        self.on_answered: Callable[[Entry, dict[str, Any]], None] = lambda _entry, _answer: None
        self.on_failed: Callable[[Entry, str, str], None] = lambda _entry, _code, _message: None
        self.on_reply: Callable[[str, dict[str, Any]], None] = lambda _id, _data: None
        self.on_watched: Callable[[tuple[str, ...], tuple[str, ...]], None] = lambda _users, _refused: None
        self.on_event: Callable[[dict[str, Any] | None], None] = lambda _event: None
        self.on_online: Callable[[dict[str, Any]], None] = lambda _welcome: None
        self.on_paths: Callable[[], None] = lambda: None
        self._writer = writer
        self._connector = connector
        self._keepalive = keepalive
        self._connect_timeout = connect_timeout
        self._paths = paths
        self._backoff = Backoff(random.random)
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._liveness: Liveness | None = None
        self._background = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = math.inf
        self._kicked = asyncio.Event()
        self._ended: asyncio.Future[tuple[str, int]] | None = None
        self._refused: str | None = None
        self._takeovers: list[float] = []
        self._welcome_by = math.inf
        self._early: list[tuple[float, int, int]] = []
        """Of what left with CONNECT: when, its token, its bytes."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._task = self._loop.create_task(self._run(), name="mqtt-im-client")

    async def stop(self) -> None:
        """Tell the server what is done, and disconnect. Nothing is called back afterwards."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self.apply(self.session.acknowledge())
            link, self._link = self._link, None
            link.disconnect()
        self.session.lost()

    def kick(self) -> None:
        """Try now, whatever was waited for; and find out whether a line that is there is alive."""
        self._backoff.reset()
        self._kicked.set()
        if self._link is not None and self._liveness is not None:
            self._ping(self._liveness)

    def background(self, on: bool) -> None:
        """Ping more rarely while this is on."""
        self._background = on
        if self._liveness is not None:
            self._liveness.background = on
        self._schedule()

    # The life of connections

    async def _run(self) -> None:
        while True:
            self._kicked.clear()
            self._become(State("connecting"))
            why = await self._one_connection()
            if self._refused is not None:
                reason, self._refused = self._refused, None
                _log.warning("%s:%s is refused: %s", self.session.user, self.session.device, reason)
                self._become(State("refused", reason=reason))
                await self._kicked.wait()
                continue
            delay = self._backoff.failed(clock.now())
            _log.info("%s:%s tries again in %.1f s: %s", self.session.user, self.session.device, delay, why)
            if self._kicked.is_set():
                continue
            self._become(State("waiting", retry_at=time.time() + delay))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._kicked.wait()

    async def _one_connection(self) -> str:
        """From the first packet to the end; why it ended, or did not come about."""
        self._ended = self._loop.create_future()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._connector.connect(self._prepare, self._started, self._accepted)
            why, code = await self._ended
        except NotAccepted as error:
            if error.code in REFUSALS:
                self._refused = error.reason
            return error.reason
        except TimeoutError:
            return f"no connection within {self._connect_timeout} s"
        except Exception as error:  # noqa: BLE001 - the network, the resolver, TLS, the app's password function
            return str(error) or repr(error)
        finally:
            self._gone()
        if code == TAKEN_OVER:
            now = clock.now()
            self._takeovers = [at for at in self._takeovers if now - at < 60.0] + [now]
            if len(self._takeovers) >= 3:
                self._takeovers.clear()
                self._refused = "another connection of this device takes over again and again; is it running twice?"
                self._kicked.clear()  # to try now was asked before that was known
        return why

    def _prepare(self, link: Link, address: Address) -> None:
        link.on_publish = lambda topic, payload, packet_id: self.apply(
            self.session.received(clock.now(), topic, payload, packet_id)
        )
        link.on_puback = self._on_puback
        link.on_suback = self._on_suback
        link.on_pong = lambda: self._heard("ping")
        link.on_bytes = lambda _count: self._liveness.heard(clock.now()) if self._liveness is not None else None
        link.on_lost = lambda why, code: self._on_lost(link, address, why, code)

    def _started(self, link: Link) -> None:
        self._early = []
        for effect in self.session.opening():
            match effect:
                case Publish(token, topic, payload, qos):
                    self._early.append((clock.now(), token, link.publish(token, topic, payload, qos)))
                case Subscribe(token, filters):
                    self._early.append((clock.now(), token, link.subscribe(token, filters)))

    def _accepted(self, link: Link, address: Address, accepted: Accepted) -> None:
        now = clock.now()
        self._link = link
        self._liveness = Liveness(now, self._paths.get(str(address), Path()), self._keepalive)
        self._liveness.background = self._background
        if accepted.keep_alive is not None:
            self._liveness.capped(accepted.keep_alive)
        for at, token, size in self._early:
            self._liveness.sent(at, token, size)
        self._welcome_by = now + self._connect_timeout
        self.apply(self.session.connected(now, accepted.receive_maximum, accepted.maximum_packet))

    def _on_lost(self, link: Link, address: Address, why: str, code: int) -> None:
        if self._link is not link:
            return
        if self._liveness is not None:
            path = self._liveness.lost() if why == _DEAD else self._liveness.path
            if path != self._paths.get(str(address)):
                self._paths[str(address)] = path
                self.on_paths()
        self._gone()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result((why, code))

    def _gone(self) -> None:
        link, self._link, self._liveness = self._link, None, None
        self._welcome_by = math.inf
        if link is not None:
            link.abort("no longer wanted")
        self.session.lost()

    def _on_puback(self, token: int, code: int, reason: str) -> None:
        self._heard(token)
        self.apply(self.session.puback(clock.now(), token, code, reason))

    def _on_suback(self, token: int, codes: list[int]) -> None:
        self._heard(token)
        self.apply(self.session.suback(token, codes))

    def _heard(self, key: object) -> None:
        if self._liveness is not None:
            if key == "ping":
                self._liveness.ponged(clock.now())
            else:
                self._liveness.answered(clock.now(), key)
            self._schedule()

    def _become(self, state: State) -> None:
        self.state = state
        self.on_state(state)

    # Time

    def _schedule(self) -> None:
        """Make sure that `_tick` comes in time; a tick too many does no harm."""
        if self._task is None:
            return
        now = clock.now()
        due = self.session.due(now)
        if self._liveness is not None:
            due = min(due, self._liveness.ping_due(), self._liveness.dead_at(), self._welcome_by)
        due = min(due, now + _LONGEST_NAP_S)
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(due - now, 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = clock.now()
        liveness, link = self._liveness, self._link
        if liveness is not None and link is not None:
            if now >= liveness.dead_at():
                link.abort(_DEAD)
            elif now >= self._welcome_by:
                link.abort("the server does not say welcome; is it a server of this protocol?")
            elif now >= liveness.ping_due():
                self._ping(liveness)
        self.apply(self.session.tick(now))

    def _ping(self, liveness: Liveness) -> None:
        assert self._link is not None
        liveness.pinged(clock.now())
        self._link.ping()
        self._schedule()

    # Effects

    def apply(self, effects: Iterable[Effect]) -> None:
        """Carry them out, in order."""
        for effect in effects:
            self._carry_out(effect)
        self._schedule()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Publish() | Subscribe() | Unsubscribe() | Acknowledge():
                if self._link is not None and self._liveness is not None:
                    self._send(effect, self._link, self._liveness)
            case Mark() | Save() | Lost() | Answered() | Failed():
                self._write(effect)
            case Reply(request_id, data):
                self.on_reply(request_id, data)
            case Watched(users, refused):
                self.on_watched(users, refused)
            case Happened(event):
                self.on_event(event)
            case Online(welcome):
                self._welcome_by = math.inf
                self._backoff.online(clock.now())
                self._become(State("online"))
                self.on_online(welcome)
            case Refuse(reason):
                self._refused = reason
                self._end(reason)
            case Drop(reason, after):
                if after is not None:
                    self._backoff.not_before(clock.now() + after)
                self._end(reason)
            case Unreadable(what):
                _log.warning("the server has sent what makes no sense, ignored: %s", what)

    def _send(self, effect: Publish | Subscribe | Unsubscribe | Acknowledge, link: Link, liveness: Liveness) -> None:
        match effect:
            case Publish(token, topic, payload, qos):
                size = link.publish(token, topic, payload, qos)
                if qos:
                    liveness.sent(clock.now(), token, size)
            case Subscribe(token, filters):
                liveness.sent(clock.now(), token, link.subscribe(token, filters))
            case Unsubscribe(filters):
                link.unsubscribe(filters)
            case Acknowledge(packet_id):
                link.acknowledge(packet_id)
                liveness.wrote(clock.now())

    def _write(self, effect: Mark | Save | Lost | Answered | Failed) -> None:
        match effect:
            case Mark(entries):
                self._mark(entries)
            case Save(then_ack):
                self.save(then_ack=then_ack)
            case Lost():
                self.save()
            case Answered(entry, answer):
                self._remove(entry)
                self.on_answered(entry, answer)
            case Failed(entry, code, message):
                self._remove(entry)
                self.on_failed(entry, code, message)

    def _end(self, reason: str) -> None:
        if self._link is not None:
            self._link.abort(reason)

    # The store

    def _mark(self, entries: tuple[Entry, ...]) -> None:
        keys = [entry.key for entry in entries]
        written = self._writer.call(lambda store: store.tried(keys))
        # Where it can't be written they leave all the same: after a crash they would only be thought never tried.
        written.add_done_callback(lambda _written: self.apply(self.session.marked(clock.now(), entries)))

    def _remove(self, entry: Entry) -> None:
        key, last_n = entry.key, self.session.outbox.last_n
        self._writer.call(lambda store: store.remove(key, last_n))

    def save(self, *, then_ack: bool = False) -> asyncio.Future[None]:
        """Write down where the inbox stands; done when it is on disk."""
        marks = self.session.inbox.marks()
        written = self._writer.call(lambda store: store.mark(marks))
        written.add_done_callback(lambda done: self._saved(done, marks, then_ack))
        return written

    def _saved(self, done: asyncio.Future[None], marks: Marks, then_ack: bool) -> None:
        if done.cancelled() or done.exception() is not None:
            _log.warning("the store can't be written: %s", "called off" if done.cancelled() else done.exception())
            self.apply(self.session.progress(clock.now()))
            return
        self.session.saved(clock.now(), marks.cursor, marks.epoch)
        if then_ack:
            self.apply(self.session.acknowledge())
        else:
            self._schedule()


_DEAD: Final = "nothing comes any more"
