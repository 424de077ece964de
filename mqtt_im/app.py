"""Floor 4, the composition: the only place that builds the parts and hands them to each other.

Up: folder lock, accounts, HTTP (so that health can be asked while the store replays its log), ledger, bridge, transport.
Down, the other way round: the transport drains, which lets everything received get its answer; then the bridge and the ledger
write what they still hold. A SIGKILL at any moment loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from mqtt_im import lasting, logs, memory
from mqtt_im.account_changes import AccountChanges
from mqtt_im.accounts.table import Accounts
from mqtt_im.bounds import bridge_settings, retention_policy, rule_limits
from mqtt_im.bridge.audience import Audience, Present
from mqtt_im.bridge.claims import Claims
from mqtt_im.bridge.logins.auth import Authenticator
from mqtt_im.bridge.neighbourhood import Neighbourhood, WideAudience
from mqtt_im.bridge.searching import Searching
from mqtt_im.bridge.service import Bridge
from mqtt_im.cluster import Neighbours
from mqtt_im.config import Address, Config
from mqtt_im.disk import keep_reserve
from mqtt_im.erasing import Eraser
from mqtt_im.files import open_files
from mqtt_im.hooks import Hooks, WebPush
from mqtt_im.http import HttpServer, Services
from mqtt_im.http.nodes import Nodes
from mqtt_im.metrics import Metrics
from mqtt_im.opening import Joined, Lags, index_of, join, keep_up, lags_of, open_store, place_for
from mqtt_im.process import check_ports, raise_file_limit, tune_interpreter
from mqtt_im.protocol.errors import ConfigError, MqttImError, StoreError
from mqtt_im.protocol.topics import Topics
from mqtt_im.readiness import Readiness
from mqtt_im.reloading import take_restart
from mqtt_im.search import file as search_file
from mqtt_im.search.thread import Search
from mqtt_im.shares import Bounds
from mqtt_im.store.folder import FolderLock
from mqtt_im.store.given import Given
from mqtt_im.store.ledger import Ledger
from mqtt_im.transport.embedded import EmbeddedTransport

if TYPE_CHECKING:
    from mqtt_im.hooks.leading import Lead

WATCH_S: Final = 0.5
CLOSE_AFTER_S: Final = 7.0
"""With the seconds until it is noticed, clients of a node whose database is gone are closed after ten."""
_STOPPED_AT_ONCE: Final = 130

log = logging.getLogger(__name__)


class Server:
    """Everything that `mqtt-im serve` runs, on one event loop."""

    def __init__(self, config: Config, reread: Callable[[], Config] | None = None, *, tells: bool = True) -> None:
        """`reread` gives the configuration anew for a reload; `tells`: webhooks are sent, else what waits goes on waiting."""
        self._tells = tells
        self.config = config
        self.metrics = Metrics()
        self._reread = reread
        self._stop = asyncio.Event()
        self._state = "starting"
        self._reload_wanted = False
        self._lock = FolderLock(config.data_dir)
        self._neighbours = Neighbours(config.cluster.node)
        self._undo = contextlib.AsyncExitStack()
        self._auth: Authenticator | None = None
        self._ledger: Ledger | None = None
        self._ready: Readiness | None = None
        self._transport: EmbeddedTransport | None = None
        self._bridge: Bridge | None = None
        self.http: HttpServer | None = None

    async def start(self) -> None:
        """Everything runs and every listener accepts; or what was started is stopped again and the reason raised.

        `MqttImError` with code `port` where an address is taken, `StoreError` where the store or its folder can't be used.
        """
        try:
            await self._start()
        except BaseException:
            await self._undo.aclose()
            raise

    async def _start(self) -> None:
        config = self.config
        bounds = Bounds(config.limits.memory_mb)
        check_ports(config)
        raise_file_limit()
        tune_interpreter(self.config.limits.memory_mb)
        self._lock.take()
        self._undo.callback(self._lock.release)
        self._undo.callback(keep_reserve, Path(config.data_dir))

        self.http = http = HttpServer(config, self.readiness, self.metrics)
        await http.start()
        self._undo.push_async_callback(http.stop)

        joined = await self._join()
        self._undo.push_async_callback(self._neighbours.stop)  # behind the ledger's: who has left can commit no cursors
        place = place_for(config, joined)
        self._undo.callback(place.close)
        accounts = await asyncio.to_thread(Accounts, place, bounds=bounds)
        self._undo.callback(accounts.close)
        self._auth = auth = Authenticator(config, accounts, self.metrics, away=lambda: self._neighbours.away)
        self._undo.callback(auth.close)

        files = await asyncio.to_thread(open_files, config.files, Path(config.data_dir), place, config.limits.memory_mb)
        self._undo.callback(files.close)
        claims = Claims(bounds)
        audience = Audience() if joined is None else WideAudience()
        around: Neighbourhood | None = None
        self._ledger = ledger = open_store(
            config,
            joined,
            lambda *committed: around.committed(*committed) if around is not None else None,
            Given(
                limits=rule_limits(config),
                has_account=accounts.exists if config.auth.mode == "accounts" else (lambda _: True),
                claim=claims.take_back,
                unclaim=claims.release,
                online=audience,
                uploads=files.uploads,
            ),
        )
        await ledger.start()
        self._undo.push_async_callback(ledger.stop)
        self._ready = Readiness(ledger)
        ledger.on_retained = files.retained
        await files.start(ledger)
        self._undo.push_async_callback(files.stop)

        count = self.metrics.count
        bridge = Bridge(ledger, Topics(config.mqtt.prefix), bridge_settings(config), auth, claims, self.metrics, audience)
        self._bridge = bridge
        self._undo.push_async_callback(bridge.stop)
        if isinstance(audience, WideAudience):
            bridge.neighbourhood = around = Neighbourhood(bridge, self._neighbours, audience)
            self._neighbours.on_lost.append(self._declared_dead)
        self._transport = transport = EmbeddedTransport(
            bridge,
            config.mqtt,
            config.websocket,
            config.limits,
            Path(config.data_dir),
            count,
            synchronous=config.store.synchronous,
            plugins=config.mqtt.plugins,
            trusted_proxies=config.http.trusted_proxies,
            clock=ledger.clock,
            database=None if joined is None else joined.database,
            neighbours=self._neighbours,
            server_reference=config.cluster.server_reference,
        )
        bridge.transport = transport
        present = Present(audience)
        data_dir = Path(config.data_dir)
        hooks = Hooks(config.push, config.hooks, data_dir, ledger, present, count, place, self._lead(joined, around))
        if self._tells:
            await hooks.start()
        self._undo.push_async_callback(hooks.stop)
        bridge.presence.listener = hooks.presence
        webpush = WebPush(config.webpush, data_dir, ledger, present, count, place, self._lead(joined, around))
        if self._tells or config.webpush.contact:
            await webpush.start()
        self._undo.push_async_callback(webpush.stop)
        self._start_search(bridge, ledger.epoch)
        lags = lags_of(config, ledger)
        self._show(ledger, transport, hooks, lags)
        await self._unless_stopped(self._neighbours.start())
        self._undo.callback(self._neighbours.quiet)
        try:
            await transport.start()
        except OSError as error:
            raise MqttImError("start", error.strerror or str(error)) from error
        self._undo.push_async_callback(transport.drain, config.limits.drain_s)

        self._lasts("upkeep", partial(keep_up, ledger, config, retention_policy(config), bridge.note_connected))
        self._lasts("lags", lags.run)
        look_s = min(memory.LOOK_S, max(memory.LEAST_LOOK_S, bounds.of(int(memory.LOOK_S))))
        growth = min(memory.GROWTH, bounds.of(memory.GROWTH))
        self._lasts("memory", partial(memory.give_back, look_s=look_s, growth=growth))
        self._lasts("new objects", memory.look_at_new)
        if around is not None:
            self._lasts("sweep", around.sweep)
            self._lasts("database", self._watch_database)
        eraser = Eraser(Path(config.data_dir), bridge, transport, files, webpush, accounts, retention_policy(config))
        changes = AccountChanges(accounts, eraser, transport, partial(count, "log_lines_suppressed"))
        self._lasts("accounts", changes.watch)
        await changes.work_off()
        http.open(
            Services(
                config,
                bridge,
                transport,
                auth,
                accounts,
                files,
                self.metrics,
                retention_policy(config),
                webpush,
                eraser,
                changes.act,
                partial(transport.websocket, "http"),
                Nodes(self._neighbours, bridge, transport, self.metrics),
                secrets.token_bytes(32) if joined is None else joined.ticket_key,
            )
        )
        self._undo.push_async_callback(http.drain, config.limits.drain_s)
        keep_reserve(Path(config.data_dir))
        self._state = "ok"
        log.info("ready", extra=self.addresses())

    def _lasts(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """This runs until the server stops."""
        task = asyncio.create_task(lasting.task(name, work), name=name)
        self._undo.push_async_callback(_cancel, task)

    async def _join(self) -> Joined | None:
        """The database that the nodes share, where there is one; it is waited for."""
        config = self.config
        if not config.store.url:
            return None
        joined = await asyncio.to_thread(join, config, self._stop.is_set)
        from mqtt_im.cluster.bus import Bus

        self._neighbours = Bus(joined.database, joined.me, Path(config.data_dir))
        return joined

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """It is done. Raises `StoreError` where this server is to stop before the database lets it be."""
        done, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((done, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise StoreError("the database does not answer")
            done.result()
        finally:
            done.cancel()
            stopped.cancel()

    @staticmethod
    def _lead(joined: Joined | None, around: Neighbourhood | None) -> Lead | None:
        """Whether this node sends what one outbox holds, where there may be others."""
        if joined is None or around is None:
            return None
        from mqtt_im.hooks.leading import Lead

        return Lead(lambda: joined.me.incarnation, lambda: around.knows_all)

    async def _declared_dead(self) -> None:
        """Other nodes serve the clients that this one had; of what these have handed in here nothing is left."""
        if self._transport is not None and self._transport.listening:  # else nobody has come yet
            await self._transport.lost()
        if self._bridge is not None:
            await self._bridge.lost()

    async def _watch_database(self) -> None:
        """Clients of a node whose database is gone are closed after a while, so that they try another node."""
        away_since = 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            if not self._neighbours.away:
                away_since = 0.0
            elif not away_since:
                away_since = now
            elif now - away_since > CLOSE_AFTER_S and self._transport is not None:
                for link in self._transport.all_links():
                    link.close("unavailable")

    def _start_search(self, bridge: Bridge, epoch: str) -> None:
        data_dir = Path(self.config.data_dir)
        if self.config.search.enabled:
            search = Search(data_dir, epoch, index_of(self.config), Bounds(self.config.limits.memory_mb))
            search.start()
            self._undo.push_async_callback(search.stop)
            bridge.searching = Searching(bridge, search)
        else:
            search_file.remove(data_dir)

    def addresses(self) -> dict[str, str]:
        """Where each listener (`mqtt`, `mqtts`, `websocket`, `http`, `https`, `metrics`) really listens."""
        found = {} if self._transport is None else dict(self._transport.addresses)
        if self.http is not None:
            found.update(self.http.addresses)
        return {name: str(Address(*address)) for name, address in found.items()}

    def _show(self, ledger: Ledger, transport: EmbeddedTransport, hooks: Hooks, lags: Lags) -> None:
        """Figures that are read when the metrics are asked for."""
        show = self.metrics.show
        self.metrics.show_each("connections", lambda: transport.protocols)
        self.metrics.show_each("node_info", lambda: {self._neighbours.name: 1.0})
        show("nodes", lambda: 1 + len(self._neighbours.others))
        show("ledger_queue_jobs", lambda: ledger.queued)
        show("devices_behind", lambda: lags.behind)
        show("worst_lag_items", lambda: lags.worst)
        ledger.writer.on_batch = partial(self.metrics.observe, "batch_jobs")
        show("tasks", lambda: len(asyncio.all_tasks()))
        show("commits", lambda: ledger.writer.commits)
        show("records", lambda: ledger.writer.records)
        show("webhooks_waiting", lambda: hooks.waiting)
        show("webhooks_dead", lambda: hooks.dead)
        show("log_lines_dropped", logs.dropped)
        show("mistakes", logs.mistakes)
        show("store_failing", lambda: float(ledger.failing is not None))

    async def stop(self) -> None:
        """Drain and stop: what was received is answered, every connection is closed, everything is on disk."""
        if self._state != "stopped":
            self._state = "draining"
            await self._undo.aclose()
            self._state = "stopped"

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Start, call `started`, run until SIGTERM, SIGINT or `request_stop`, then stop.

        SIGHUP reloads; a second SIGINT ends the process at once. Signals that come during the start are obeyed after
        it; while it waits for the database, at once.
        """
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self.request_stop,
            signal.SIGINT: self._interrupted,
            signal.SIGHUP: self.reload,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            try:
                await self.start()
            except StoreError:
                if not self._stop.is_set():
                    raise
                log.info("stopped before the database was there")
                return
            if not self._stop.is_set():
                started()
            if self._reload_wanted:
                self.reload()
            await self._stop.wait()
            log.info("stopping: what was received is finished first")
            await self.stop()
            log.info("stopped")
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def request_stop(self) -> None:
        """Have `run` stop the server and return."""
        self._stop.set()

    def _interrupted(self) -> None:
        if self._stop.is_set():
            log.warning("stopped at once; nothing that was acknowledged is lost")
            logging.shutdown()
            os._exit(_STOPPED_AT_ONCE)
        self.request_stop()

    async def readiness(self) -> dict[str, str]:
        """Each part with `"ok"`, or with what is wrong."""
        parts = {"server": self._state}
        if self._ready is None or self._state == "starting":
            parts["store"] = "starting"
        else:
            parts["store"] = "the database does not answer" if self._neighbours.away else await self._ready.ask()
        listening = self._transport is not None and self._transport.listening
        parts["listeners"] = "ok" if listening else "not accepting"
        return parts

    def reload(self) -> None:
        """Read the configuration again and take over what may change while running; a wrong one changes nothing."""
        if self._reread is None:
            return
        if self._state == "starting":
            self._reload_wanted = True
            return
        try:
            config = self._reread()
        except ConfigError as error:
            for mistake in error.mistakes:
                log.error("not reloaded: %s", mistake)
            return
        try:
            swaps: list[Callable[[], None]] = []
            if self._transport is not None:
                swaps += (self._transport.renewed(config.mqtt.tls), self._transport.reopened(config.mqtt.plain_topics))
            if self.http is not None:
                swaps.append(self.http.renewed(config.http.tls))
            if self._auth is not None:
                swaps.append(self._auth.renewed(config))
        except (OSError, MqttImError) as error:
            log.error("not reloaded: %s", error)
            return
        for swap in swaps:
            swap()
        for name in take_restart(self.config, config):
            log.warning("%s has changed; that takes a restart", name)
        logs.set_up(config.log)
        log.info("reloaded")


async def work_off(config: Config) -> None:
    """What commands have left for the next start is done, by a server that listens nowhere and stops at once."""
    nowhere = replace(
        config,
        mqtt=replace(config.mqtt, bind="", tls=replace(config.mqtt.tls, bind="")),
        websocket=replace(config.websocket, bind=""),
        http=replace(config.http, bind="", metrics_bind="", tls=replace(config.http.tls, bind="")),
    )
    server = Server(nowhere, tells=False)
    await server.start()
    await server.stop()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
