"""Shared subscriptions (MQTT5-4.8.2): each message goes to one of a group's members, in turn."""

from __future__ import annotations

from mqtt_im.transport.embedded.sessions.session import Session


class Group:
    """The members of one `$share/{name}/{filter}`. In the index of filters it stands where a session would."""

    __slots__ = ("members", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        """The whole of it, as it is subscribed."""
        self.members: dict[Session, int] = {}
        """With the options of their subscription; whose turn is next stands first."""

    def choose(self, qos: int) -> Session | None:
        """Whose turn it is, for a message of this QoS: of those who are there, or who at least keep what they cannot take now."""
        waiting = None
        for session, options in self.members.items():
            connection = session.connection
            if connection is not None and not connection.closed and connection.writable and connection.room > 0:
                return self._next_is_behind(session)
            if waiting is None and (connection is not None or min(qos, options & 3)):
                waiting = session
        return None if waiting is None else self._next_is_behind(waiting)

    @property
    def served(self) -> bool:
        """Whether a member is there."""
        return any(session.connection is not None and not session.connection.closed for session in self.members)

    def _next_is_behind(self, session: Session) -> Session:
        self.members[session] = self.members.pop(session)
        return session


class Part(Group):
    """Those members of a group who may get one message."""

    __slots__ = ("_whole",)

    def __init__(self, whole: Group, members: dict[Session, int]) -> None:
        super().__init__(whole.text)
        self.members = members
        self._whole = whole

    def _next_is_behind(self, session: Session) -> Session:
        if session in self._whole.members:
            self._whole._next_is_behind(session)  # noqa: SLF001 - whose turn it is there counts here too
        return session


class Groups:
    """All groups, by their text."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def join(self, text: str, session: Session, options: int) -> Group | None:
        """Become a member, or change one's options; returns the group where it is a new one."""
        group = self._groups.get(text)
        if group is not None:
            group.members[session] = options
            return None
        group = self._groups[text] = Group(text)
        group.members[session] = options
        return group

    def has(self, text: str, session: Session) -> bool:
        """Whether it is a member."""
        group = self._groups.get(text)
        return group is not None and session in group.members

    def leave(self, text: str, session: Session) -> Group | None:
        """Be a member no more; returns the group where that was the last one."""
        group = self._groups.get(text)
        if group is None:
            return None
        group.members.pop(session, None)
        if group.members:
            return None
        return self._groups.pop(text)

    def find(self, text: str) -> Group | None:
        """The group of this text."""
        return self._groups.get(text)
