"""What a delivery offers becomes packets, as far as the socket has room and the device takes them."""

from __future__ import annotations

from mqtt_im.core import costs
from mqtt_im.core.delivery import Claim, Delivery
from mqtt_im.mqtt import V5
from mqtt_im.mqtt import properties as props

from .channel import Channel


def offer(channel: Channel, now: int, claim: Claim) -> int:
    """Write what the delivery has to send and the socket has room for; returns how many packets that were."""
    delivery, link = channel.delivery, channel.link
    if delivery is None or link.closed:
        return 0
    topic = channel.user_topic if link.user_qos >= 0 else channel.device_topic
    if link.version == V5:
        channel.flush_late()
        return _offer5(channel, delivery, topic, now, claim)
    publish, encode = link.publish, channel.encoder()
    count = again = 0
    while link.writable:
        packet = delivery.take(now, claim)
        if packet is None:
            break
        packet_id, payload, dup = packet
        publish(topic, payload if encode is None else encode(payload), packet_id, dup)
        count += 1
        if dup:
            again += len(payload)
    if again:
        link.charge(again / costs.BODY_BYTES)  # who asks for the same again and again pays for it
    return count


def _offer5(channel: Channel, delivery: Delivery, topic: bytes, now: int, claim: Claim) -> int:
    """The same for a device of MQTT 5, which may take only so many packets, of a certain size, and gets properties."""
    link, count, again = channel.link, 0, 0
    publish, encode, fits = link.publish, channel.encoder(), not link.max_packet
    while link.writable and (link.room > 0 or not delivery.qos):
        packet = delivery.take(now, claim)
        if packet is None:
            break
        packet_id, payload, dup = packet
        if dup:
            again += len(payload)
        offered = delivery.offered
        if len(offered) == 1:
            if fits and not channel.awaited and not offered[0][1].expires:  # it surely has no properties
                publish(topic, payload if encode is None else encode(payload), packet_id, dup)
            else:
                _offer_one(channel, delivery, topic, packet_id, payload, dup, now)
            count += 1
        elif publish(topic, channel.encode(payload), packet_id, dup):
            count += 1
            if channel.awaited:
                for pos, _ in offered:
                    channel.came(pos)
        else:
            delivery.limit = max(1, len(payload) // 2)
            delivery.put_back(packet_id)
    if again:
        link.charge(again / costs.BODY_BYTES)
    return count


def _offer_one(channel: Channel, delivery: Delivery, topic: bytes, packet_id: int, payload: bytes, dup: bool, now: int) -> None:
    pos, entry = delivery.offered[0]
    properties = correlation = b""
    if entry.sent is not None and entry.by == channel.user and entry.device == channel.device:
        awaited = channel.came(pos)
        if awaited is not None and not dup:
            correlation = props.one(props.CORRELATION_DATA, awaited)
    elif entry.expires and not entry.is_void(channel.user, now):
        properties = props.one(props.MESSAGE_EXPIRY, max(1, -((now - entry.expires) // 1000)))
    publish, encoded = channel.link.publish, channel.encode(payload)
    if publish(topic, encoded, packet_id, dup, False, properties + correlation):
        return
    if correlation and publish(topic, encoded, packet_id, dup, False, properties):
        return
    if not publish(topic, channel.encode(delivery.too_large(packet_id)), packet_id, dup) and packet_id:
        delivery.acked(packet_id)  # not even that fits: it counts as delivered
