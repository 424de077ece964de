"""Plain topics: publishing to whoever subscribed, at QoS 0, 1 and 2.

What a PUBACK, PUBREC or SUBACK promises to a kept session is committed before it leaves: a message is first a row of
each kept session that is to get it at QoS 1 or 2, and is sent to those when the row is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from mqtt_im.mqtt.packets import NO_LOCAL, RETAIN_AS_PUBLISHED
from mqtt_im.mqtt.topics import split_share
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.crowds import CROWD, Crowds
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.holding import Holding
from mqtt_im.transport.embedded.sessions.keeping import Keeping, Promise, Reach
from mqtt_im.transport.embedded.sessions.message import PlainMessage, identifiers
from mqtt_im.transport.embedded.sessions.retained import Retained, RetainedMessage
from mqtt_im.transport.embedded.sessions.routing import Subscriptions
from mqtt_im.transport.embedded.sessions.session import Message, Session
from mqtt_im.transport.embedded.sessions.sharing import Group, Groups
from mqtt_im.transport.embedded.sessions.streams import Streams

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.sessions.abroad import Abroad, Away
    from mqtt_im.transport.embedded.sessions.shared import Relayed

Done = Callable[[bool], None]


class Plain:
    """Routes plain messages. One object for all connections."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._index: Subscriptions[Session | Group] = Subscriptions()
        self._groups = Groups()
        self.holding = Holding(ground.bounds)
        self.retained = Retained(ground)
        self.streams = Streams(ground, self.retained)
        self.crowds: Crowds[Session, tuple[bytes, PlainMessage, list[int], Keeping | None]] = Crowds(self._give)
        """What many sessions are still to be handed."""
        self._kept: Crowds[Session, Message] = Crowds(self._kept_one)
        """What many kept sessions have on disk, and are still to queue."""
        self.abroad: Abroad | None = None
        """The other nodes, where there may be some."""
        self.ask: Callable[[PlainMessage, Group], None] | None = None
        """Where plugins have a say: publishes a message to a group, of those members whom they let receive it."""

    # Subscriptions

    def is_plain(self, topic_filter: str) -> bool:
        """Whether a granted filter stands in this index."""
        return not self._ground.access.topics.owns(topic_filter)

    def subscribe(self, session: Session, topic_filter: str, options: int) -> None:
        """Put one filter into the index; the session's own record is the caller's."""
        name, shared = split_share(topic_filter)
        if not name:
            is_new = is_first = self._index.add(topic_filter, session, options)
        else:
            is_new = not self._groups.has(topic_filter, session)
            group = self._groups.join(topic_filter, session, options)
            if is_first := group is not None:
                self._index.add(shared, group, 0)
        if is_new:
            self.holding.add(_holder(session), topic_filter)
        if is_first and self.abroad is not None:
            self.abroad.interests.subscribed(topic_filter)

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Take one filter out of the index. What was published before, the session has got."""
        self.crowds.catch_up(session)
        name, shared = split_share(topic_filter)
        if not name:
            found = was_last = self._index.remove(topic_filter, session)
        else:
            found = self._groups.has(topic_filter, session)
            group = self._groups.leave(topic_filter, session)
            if was_last := group is not None:
                self._index.remove(shared, group)
        if found:
            self.holding.drop(_holder(session), topic_filter)
        if was_last and self.abroad is not None:
            self.abroad.interests.unsubscribed(topic_filter)

    def has_room(self, session: Session, topic_filter: str) -> bool:
        """Whether there is memory for one more filter of this session's user."""
        return self.holding.has_room(_holder(session), topic_filter)

    def subscribe_all(self, session: Session) -> None:
        """Put all plain filters of a session in, and count them there."""
        session.plain = 0
        for topic_filter, options in session.filters.items():
            if self.is_plain(topic_filter):
                self.subscribe(session, topic_filter, options)
                session.plain += 1

    def unsubscribe_all(self, session: Session) -> None:
        """Take all plain filters of a session out."""
        if session.plain:
            for topic_filter in filter(self.is_plain, session.filters):
                self.unsubscribe(session, topic_filter)
            session.plain = 0

    # Publishing

    def publish(
        self,
        message: PlainMessage,
        done: Done | None = None,
        *,
        promise: Promise | None = None,
        targets: dict[Session | Group, list[int]] | None = None,
        publisher: Session | None = None,
    ) -> Reach:
        """Hand a message to every subscriber (or to `targets` alone), and keep it where it is to be retained.

        Returns whom it has reached.

        `done` is called when its acknowledgement may leave: at once, or when what must survive has been committed, `promise` in
        the same transaction. `publisher` is whose own message it is (No Local).
        """
        receivers, looked = self._index.look(message.topic) if targets is None else (targets, 0)
        away, others = (None, ()) if self.abroad is None or targets is not None else self.abroad.reach(message, self._served)
        keeping = Keeping(promise)
        crowd, slow = self._hand_out(message, receivers, others, publisher, keeping)
        durable = promise is not None
        if message.retain and message.qos and self._retain(message):
            durable = True
        elif message.retain and not message.qos:
            self._retain(message)
        reach = Reach(sum(map(len, receivers.values())), looked, len(keeping.messages) + slow)
        if away is not None:
            reach = reach._replace(filters=reach.filters + away.count)
            durable |= away.durable

        def committed(ok: bool) -> None:
            self._written(keeping, ok=ok)
            if ok:
                self._tell(message, away, done)
            elif done is not None:
                done(False)

        def write() -> None:
            self._ground.store.write_all(keeping.statements())
            self._ground.store.committed(committed)

        if slow:
            self.crowds.start(crowd, write)
            return reach
        if crowd:
            self.crowds.start(crowd)
        if keeping.messages or durable:
            write()
        else:
            self._tell(message, away, done)
        return reach

    def _hand_out(
        self,
        message: PlainMessage,
        receivers: dict[Session | Group, list[int]],
        others: Container[str],
        publisher: Session | None,
        keeping: Keeping,
    ) -> tuple[dict[Session, tuple[bytes, PlainMessage, list[int], Keeping | None]], int]:
        """Hand it to those who have subscribed; returns whom it is to be handed in turns, and how many of them keep it.

        `others` are the shared subscriptions of which another node's member gets it. What is on its way to the disk first is
        added to `keeping`.
        """
        topic = message.topic.encode()
        crowd: dict[Session, tuple[bytes, PlainMessage, list[int], Keeping | None]] = {}
        slow = 0
        many = len(receivers) > CROWD
        for subscriber, found in receivers.items():
            if others and isinstance(subscriber, Group) and subscriber.text in others:
                continue
            session, options, share = _recipient(subscriber, found, message.qos, publisher)
            if session is None or not options:
                continue
            keeps = session.kept and bool(_qos(message, options))
            # Other nodes read a session's messages from the database alone, so that there nothing of it may be on its way.
            if many and subscriber is session and not (keeps and self._ground.store.shared):
                crowd[session] = topic, message, options, keeping if keeps else None
                slow += keeps
                continue
            self.crowds.catch_up(session)
            self._hand_over(session, topic, message, options, share, keeping)
        return crowd, slow

    def _give(self, session: Session, what: tuple[bytes, PlainMessage, list[int], Keeping | None]) -> None:
        """Hand one session of a crowd its message, unless it has ended meanwhile."""
        topic, message, options, keeping = what
        if session.kept if keeping is not None else session.connection is not None:
            self._hand_over(session, topic, message, options, "", keeping)

    def _hand_over(
        self, session: Session, topic: bytes, message: PlainMessage, options: list[int], share: str, keeping: Keeping | None
    ) -> None:
        queued = self._hand_to(session, topic, message, options, share)
        if queued is None:
            return
        if session.kept and keeping is not None:
            keeping.add(session, queued, self.streams.row(session, queued))
        else:
            self.streams.ready(session, queued)

    def _written(self, keeping: Keeping, *, ok: bool) -> None:
        """What kept sessions are to get is on disk, and is queued, in turns where that is much; or it is not."""
        if ok and len(keeping.messages) > CROWD:
            self._kept.start(dict(keeping.messages))
            return
        for session, queued in keeping.messages:
            self._kept_one(session, queued, ok=ok)

    def _kept_one(self, session: Session, queued: Message, *, ok: bool = True) -> None:
        for message in session.written(queued, ok=ok):
            self.crowds.catch_up(session)
            self.streams.ready(session, message)

    def _served(self, text: str) -> bool:
        group = self._groups.find(text)
        return group is not None and group.served

    def _tell(self, message: PlainMessage, away: Away | None, done: Done | None) -> None:
        """Other nodes are told, and what was to survive is committed: the acknowledgement leaves when that is on its way."""
        if self.abroad is not None and away is not None and (away.count or message.retain):
            self.abroad.send(message, away, None if done is None else lambda: done(True))
        elif done is not None:
            done(True)

    def arrived(self, message: PlainMessage, share: str) -> None:
        """It was published at another node. What kept sessions get above QoS 0 comes as rows (`take_in`, `share_in`)."""
        if share:
            self._to_one(share, message)
            return
        topic = message.topic.encode()
        receivers: dict[Session, tuple[bytes, PlainMessage, list[int], Keeping | None]] = {
            subscriber: (topic, message, options, None)
            for subscriber, options in self._index.match(message.topic).items()
            if not isinstance(subscriber, Group) and not (subscriber.kept and _qos(message, options))
        }
        if len(receivers) > CROWD:
            self.crowds.start(receivers)
            return
        for session, what in receivers.items():
            self.crowds.catch_up(session)
            self._give(session, what)

    def _to_one(self, text: str, message: PlainMessage) -> None:
        """Another node has chosen this one: it goes to a member here, where one is left."""
        group = self._groups.find(text)
        if group is not None and group.served:
            self.publish(replace(message, retain=False), targets={group: []})
        else:
            self._share(text, message)

    def _share(self, text: str, message: PlainMessage) -> None:
        """It goes to a member of this shared subscription: here, or elsewhere."""
        group = self._groups.find(text)
        away = self.abroad.nowhere() if self.abroad is not None else None
        if away is None or self.abroad is None or self.abroad.share(away, text, message, self._served(text)):
            if group is not None and self.ask is not None:
                self.ask(replace(message, retain=False), group)
            elif group is not None:
                self.publish(replace(message, retain=False), targets={group: []})
            return
        self._ground.store.committed(lambda ok: self._tell(message, away, None) if ok else None)

    async def share_in(self, rows: list[Relayed]) -> bool:
        """Each row, which another node has written, goes to a member of its shared subscription; whether that was committed."""
        for row in rows:
            self._ground.store.write(sql.DROP_RELAYED, row.id)  # first, so that it is of one transaction with what follows
            if self._ground.access.plain.is_open(row.topic):
                message = PlainMessage(row.topic, row.payload, row.qos, False, row.properties, row.expires)
                self._to_one(row.share, message)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._ground.store.committed(lambda ok: None if future.done() else future.set_result(ok))
        return await future

    async def take_in(self, session: Session, rows: list[Relayed]) -> bool:
        """Rows that another node has written become the session's own, with one transaction; whether it was committed."""
        queued = []
        for row in rows:
            if session.outbox is None and not self._ground.limits.max_queued_messages:
                self._ground.count("plain_dropped")
            elif self._ground.access.plain.is_open(row.topic):
                outbox = session.need_outbox(self._ground.limits, self._ground.room)
                message = outbox.create(
                    row.topic.encode(), row.payload, row.qos, row.retain, row.properties, row.expires, row.share
                )
                self.streams.enqueue(session, message)
                queued.append(message)
            self._ground.store.write(sql.DROP_RELAYED, row.id)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def committed(ok: bool) -> None:
            self.crowds.catch_up(session)
            for message in queued if ok else ():
                self.streams.ready(session, message)
            if not future.done():
                future.set_result(ok)

        self._ground.store.committed(committed)
        return await future

    def _hand_to(self, session: Session, topic: bytes, message: PlainMessage, options: list[int], share: str) -> Message | None:
        """Send it to one session at QoS 0, or make what is to be queued there (MQTT-3.3.5-1)."""
        limits = self._ground.limits
        qos = _qos(message, options)
        retain = message.retain and any(each & RETAIN_AS_PUBLISHED for each in options)
        properties = identifiers(options) + message.properties
        connection = session.connection
        if session.catch_up is not None and message.retain:
            session.catch_up.pop(message.topic, None)
        if qos == 0:
            if connection is not None:
                connection.publish_plain(
                    topic, message.payload, retain=retain, properties=self.streams.with_expiry(properties, message.expires)
                )
            return None
        if connection is None and not (session.kept and limits.max_queued_messages):
            self._ground.count("plain_dropped")
            return None
        outbox = session.need_outbox(limits, self._ground.room)
        return outbox.create(topic, message.payload, qos, retain, properties, message.expires, share)

    def subscribers(self, topic: str) -> dict[Session | Group, list[int]]:
        """Everybody who is to get a message on `topic`, with the options of their subscriptions."""
        return self._index.match(topic)

    def share_out(self, messages: Iterable[Message]) -> None:
        """A session has ended: what came to it by a shared subscription, and was not finished, goes to another member.

        At QoS 2 only what was never sent (MQTT5-4.8.2-4, -5).
        """
        for message in messages:
            if not message.share or (message.qos == 2 and message.stage):
                continue
            topic = message.topic.decode()
            again = PlainMessage(topic, message.payload, message.qos, False, message.properties, message.expires)
            self._share(message.share, again)

    # Retained messages

    def _retain(self, message: PlainMessage) -> bool:
        kept = RetainedMessage(message.payload, message.qos, message.properties, message.expires)
        return self.retained.keep(message.topic, kept)


def _holder(session: Session) -> str:
    """Whose its filters are: its user's, and of nobody its own."""
    user, name = session.key
    return user or f"\0{name}"


def _qos(message: PlainMessage, options: list[int]) -> int:
    """At which QoS a session gets a message that filters with these options have matched (MQTT-3.3.5-1)."""
    return min(message.qos, options[0] & 3 if len(options) == 1 else max(each & 3 for each in options))


def _recipient(
    subscriber: Session | Group, options: list[int], qos: int, publisher: Session | None
) -> tuple[Session | None, list[int], str]:
    """Who gets it, by which options, and by which share of a group; nobody, or by none, where it is nobody's."""
    if isinstance(subscriber, Group):
        session = subscriber.choose(qos)
        return session, [] if session is None else [subscriber.members[session]], subscriber.text
    if subscriber is publisher:
        options = [each for each in options if not each & NO_LOCAL]  # MQTT5-3.8.3-3
    return subscriber, options, ""
