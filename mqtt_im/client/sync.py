"""The same client without asyncio: the same names, blocking, over one thread with an event loop.

    with Client("mqtt://127.0.0.1:1883", user="alice", store="alice.db") as im:
        im.send("bob", "hi").sent()
        for message in im.messages(timeout=60):  # ends when nothing came for a minute
            print(message.sender, message.body)

Every method may be called from any thread. What the asynchronous client raises is raised here.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from . import client as asynchronous
from .errors import ClientError, SendFailed
from .events import Event
from .iterators import Reader
from .message import Message as AsyncMessage
from .message import MessageFields, Page
from .outgoing import Outgoing as AsyncOutgoing
from .states import State

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
AsyncClient = asynchronous.Client


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mqtt-im-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it on the loop and wait for it; an interrupt here calls it off there."""
        if threading.current_thread() is self._thread:
            work.close()
            raise ClientError("this would wait for itself: it was called on the client's own thread")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """The thread has ended."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Message(MessageFields):
    """See `MessageFields`."""

    __slots__ = ("_finish",)

    def __init__(self, raw: dict[str, Any], *, again: bool, epoch: str, finish: Callable[[], None]) -> None:
        super().__init__(raw, again=again, epoch=epoch)
        self._finish = finish

    def done(self) -> None:
        """This message and all before it are done, on disk when it returns. Raises `StoreUnusable`."""
        self._finish()


class Outgoing:
    """See `mqtt_im.client.Outgoing`."""

    __slots__ = ("_client", "_inner")

    def __init__(self, client: Client, inner: AsyncOutgoing) -> None:
        self._client = client
        self._inner = inner

    @property
    def id(self) -> str:
        """Its name on the wire."""
        return self._inner.id

    @property
    def op(self) -> str:
        """What it asks for."""
        return self._inner.op

    @property
    def to(self) -> str | None:
        """To whom or where it goes."""
        return self._inner.to

    @property
    def state(self) -> str:
        """`queued`, `sent`, `delivered`, `read` or `failed`."""
        return self._inner.state

    @property
    def error(self) -> SendFailed | None:
        """Why it failed."""
        return self._inner.error

    @property
    def conv(self) -> str | None:
        """Its conversation, once it is sent."""
        return self._inner.conv

    @property
    def seq(self) -> int | None:
        """Its place there, once it is sent."""
        return self._inner.seq

    @property
    def ts(self) -> int | None:
        """When the server committed it."""
        return self._inner.ts

    @property
    def reply(self) -> dict[str, Any] | None:
        """The fields of the server's `ok`."""
        return self._inner.reply

    @property
    def group(self) -> str | None:
        """The group that `group_create` made."""
        return self._inner.group

    def sent(self, timeout: float | None = None) -> Outgoing:
        """Returns once the server has committed it. Raises `SendFailed`, `TimeoutError`."""
        self._client.wait(self._inner.sent(timeout))
        return self

    def delivered(self, timeout: float | None = None) -> Outgoing:
        """Returns once the recipient's device has it. Raises `SendFailed`, `TimeoutError`."""
        self._client.wait(self._inner.delivered(timeout))
        return self

    def read(self, timeout: float | None = None) -> Outgoing:
        """Returns once the recipient has read it. Raises `SendFailed`, `TimeoutError`."""
        self._client.wait(self._inner.read(timeout))
        return self

    def cancel(self) -> bool:
        """True where it is taken back before it was ever on the wire."""
        return self._client.wait(self._inner.cancel())

    def __repr__(self) -> str:
        return repr(self._inner)


class Iterator(Generic[R, T]):
    """Goes over what an asynchronous reader yields; ends with it, or when nothing came for `timeout` seconds."""

    def __init__(self, client: Client, reader: Reader[R], shape: Callable[[R], T], timeout: float | None) -> None:
        self._client = client
        self._reader = reader
        self._shape = shape
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        found = self._client.wait(self._next())
        if found is None:
            raise StopIteration
        return self._shape(found[0])

    async def _next(self) -> tuple[R] | None:
        try:
            async with asyncio.timeout(self._timeout):
                return (await anext(self._reader),)
        except (TimeoutError, StopAsyncIteration):
            return None

    def close(self) -> None:
        """End it."""
        self._client.later(self._reader.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _same(method: Callable[Concatenate[AsyncClient, P], Awaitable[T]]) -> Callable[Concatenate[Client, P], T]:
    """The blocking form of a method."""

    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.wait(_awaited(method(self.inner, *args, **kwargs)))

    return _named(call, method)


def _change(
    method: Callable[Concatenate[AsyncClient, P], Awaitable[AsyncOutgoing]],
) -> Callable[Concatenate[Client, P], Outgoing]:
    """The blocking form of a change."""

    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Outgoing:
        return Outgoing(self, self.wait(_awaited(method(self.inner, *args, **kwargs))))

    return _named(call, method)


def _named(call: Callable[P, T], method: Any) -> Callable[P, T]:
    call.__name__, call.__qualname__, call.__doc__ = method.__name__, f"Client.{method.__name__}", method.__doc__
    return call


async def _awaited(work: Awaitable[T]) -> T:
    return await work


class Client:
    """See `mqtt_im.client.Client`: the same arguments, the same methods."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._loop = _Loop()
        self._stopped = False
        try:
            self.inner = self.wait(self._make(args, options))
        except BaseException:
            self._stop()
            raise

    @staticmethod
    async def _make(args: tuple[Any, ...], options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(*args, **options)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the client's thread and wait for it."""
        if self._stopped:
            work.close()
            raise ClientError("this client was closed; make another one")
        return self._loop.wait(work)

    def later(self, work: Callable[[], None]) -> None:
        """Do something on the client's thread, soon."""
        with contextlib.suppress(RuntimeError):
            self._loop.loop.call_soon_threadsafe(work)

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._loop.stop()

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Disconnected, the store is free for others, and the thread has ended; for good."""
        if not self._stopped:
            try:
                self.wait(self.inner.close())
            finally:
                self._stop()

    @property
    def user(self) -> str:
        """The user."""
        return self.inner.user

    @property
    def device(self) -> str:
        """This device's name."""
        return self.inner.device

    @property
    def state(self) -> State:
        """Where it stands: `connecting`, `online`, `waiting`, `refused` or `closed`."""
        return self.inner.state

    connect = _same(AsyncClient.connect)
    online = _same(AsyncClient.online)

    send = _change(AsyncClient.send)
    edit = _change(AsyncClient.edit)
    recall = _change(AsyncClient.recall)
    react = _change(AsyncClient.react)
    report = _change(AsyncClient.report)
    read = _change(AsyncClient.read)
    mute = _change(AsyncClient.mute)
    settings = _change(AsyncClient.settings)
    block = _change(AsyncClient.block)
    unblock = _change(AsyncClient.unblock)
    device_forget = _change(AsyncClient.device_forget)
    group_create = _change(AsyncClient.group_create)
    group_add = _change(AsyncClient.group_add)
    group_remove = _change(AsyncClient.group_remove)
    group_role = _change(AsyncClient.group_role)
    group_rename = _change(AsyncClient.group_rename)
    group_leave = _change(AsyncClient.group_leave)

    request = _same(AsyncClient.request)
    conversations = _same(AsyncClient.conversations)
    group_info = _same(AsyncClient.group_info)
    devices = _same(AsyncClient.devices)
    typing = _same(AsyncClient.typing)
    watch = _same(AsyncClient.watch)
    unwatch = _same(AsyncClient.unwatch)
    upload = _same(AsyncClient.upload)
    download = _same(AsyncClient.download)

    def history(self, *args: Any, **options: Any) -> Page[Message]:
        """See `mqtt_im.client.Client.history`."""
        return self._page(self.wait(self.inner.history(*args, **options)))

    def search(self, *args: Any, **options: Any) -> Page[Message]:
        """See `mqtt_im.client.Client.search`."""
        return self._page(self.wait(self.inner.search(*args, **options)))

    def outgoing(self) -> list[Outgoing]:
        """What has no answer yet, in the order in which it was sent; after a restart, too."""

        async def ask() -> list[AsyncOutgoing]:
            return self.inner.outgoing()

        return [Outgoing(self, each) for each in self.wait(ask())]

    def messages(self, timeout: float | None = None) -> Iterator[AsyncMessage, Message]:
        """See `mqtt_im.client.Client.messages`. Ends when none has come for `timeout` seconds."""
        return self._iterator(self.inner.messages, self._message, timeout)

    def events(self, timeout: float | None = None) -> Iterator[Event, Event]:
        """See `mqtt_im.client.Client.events`. Ends when none has come for `timeout` seconds."""
        return self._iterator(self.inner.events, lambda event: event, timeout)

    def states(self, timeout: float | None = None) -> Iterator[State, State]:
        """See `mqtt_im.client.Client.states`. Ends when nothing has changed for `timeout` seconds."""
        return self._iterator(self.inner.states, lambda state: state, timeout)

    def network_changed(self) -> None:
        """The machine has another network: try now, and find out whether an old line is still alive."""
        self.later(self.inner.network_changed)

    def background(self, on: bool = True) -> None:
        """While on, the line is asked more rarely whether it is alive."""
        self.later(lambda: self.inner.background(on))

    def _iterator(self, make: Callable[[], Reader[R]], shape: Callable[[R], T], timeout: float | None) -> Iterator[R, T]:
        async def begin() -> Reader[R]:
            return make()

        return Iterator(self, self.wait(begin()), shape, timeout)

    def _message(self, message: AsyncMessage) -> Message:
        return Message(message.raw, again=message.again, epoch=message.epoch, finish=lambda: self.wait(message.done()))

    def _page(self, page: Page[AsyncMessage]) -> Page[Message]:
        return Page([self._message(each) for each in page], more=page.more, following=page.next)
