"""The life of a delivery: it begins when a device has subscribed and the store has said where, and ends with the subscription."""

from __future__ import annotations

from mqtt_im.core.delivery import Delivery
from mqtt_im.core.rules import Who
from mqtt_im.protocol.errors import Quota
from mqtt_im.store.jobs.delivering import AttachJob

from .channel import Channel
from .parking import Parking
from .seam import Bridge
from .uplink import error_fields


class Attaching:
    """The deliveries of one bridge's channels."""

    def __init__(self, bridge: Bridge, parking: Parking) -> None:
        """`parking` has what was in flight on former connections."""
        self._bridge = bridge
        self._parking = parking

    def open(self, channel: Channel) -> None:
        """The channel has its delivery as soon as the store has said where that begins."""
        if channel.opening:
            return
        bridge = self._bridge
        channel.opening = True
        channels = bridge.online.get(channel.user)
        if channels is None:
            # Before the state is asked for, so that whatever is committed after it was read is told to this channel.
            bridge.online[channel.user] = [channel]
        else:
            channels.append(channel)
        key = (channel.user, channel.device)
        bridge.cursors.comes(*key)
        blind = channel.link.resumed and not self._parking.knows(key)
        who = Who(channel.user, channel.device, 0)
        bridge.ledger.submit(AttachJob(who, lambda job: self._opened(channel, job), blind))

    def _opened(self, channel: Channel, job: AttachJob) -> None:
        bridge = self._bridge
        if channel.began is not None and not channel.began.done():
            channel.began.set_result(job.refusal)
        state = job.state
        if channel.link.closed or not channel.opening:
            if not bridge.audience.has(channel.user, channel.device):
                bridge.cursors.left(channel.user, channel.device, settled=not job.was_exposed)
            return
        if job.refusal is not None or state is None:
            self.close(channel)  # the next SUBSCRIBE asks again
            if job.refusal is not None:
                if isinstance(job.refusal, Quota):
                    bridge.metrics.count("quota_refusals", what=job.refusal.what)
                channel.reply(error_fields(job.refusal, None))
            if job.refusal is None or job.refusal.retry:
                channel.link.close("unavailable")
            return
        delivery = Delivery(
            channel.user,
            channel.device,
            max(state.cursor, bridge.cursors.known(channel.user, channel.device)),
            state.head,
            qos=channel.item_qos,
            window=channel.window or bridge.settings.max_inflight,
            app=state.app,
            memory=bridge.delivery_memory,
        )
        delivery.batch = channel.batch
        first = not bridge.audience.reachable(channel.user)
        channel.delivery, channel.missed = delivery, state.head
        channel.exposed = state.head if job.was_exposed else 0
        if first:
            bridge.presence.came(channel.user)
        channel.limit_batches()
        key = (channel.user, channel.device)
        parked = self._parking.take(key)
        if not self._parking.knows(key):
            self._parking.remember(key, job.sent_upto)
        if channel.link.resumed:
            if parked is not None:
                for packet_id, request, correlation in channel.resend(parked.replies, parked.waited):
                    bridge.uplinks.ask_again(channel, packet_id, request, correlation)
                delivery.resume(parked.flights)
            delivery.resume_blind(self._parking.sent_upto(key))
        bridge.pump.begin(channel)
        bridge.pulling.attached(channel.user, state.head, job)

    def close(self, channel: Channel) -> None:
        """It has none any more, or is to have none."""
        if not channel.opening:
            return
        bridge = self._bridge
        channel.opening = False
        channels = bridge.online[channel.user]
        channels.remove(channel)
        if channel.delivery is not None:
            bridge.cursors.left(channel.user, channel.device, settled=channel.settled)
        if not channels:
            del bridge.online[channel.user]
        if channel.delivery is not None and not bridge.audience.reachable(channel.user):
            bridge.presence.went(channel.user)
