#!/usr/bin/env bash
# A device in a shell, on mosquitto_pub, mosquitto_sub and jq: mosquitto.sh USER DEVICE PEER. From the environment: IM_HOST, IM_PORT.
# It speaks MQTT 3.1.1, or 5 with IM_VERSION=5. Each line of stdin is sent to PEER until the server has it; what comes is printed, once, and kept in a file.
set -uo pipefail
user=$1 device=$2 peer=$3
where=(-h "${IM_HOST:-127.0.0.1}" -p "${IM_PORT:-1883}" -u "$user")
kept=()
[ "${IM_VERSION:-}" = 5 ] && where+=(-V mqttv5) kept=(-x 2592000) # in MQTT 5 a session is kept for so many seconds
inbox=$user-$device.jsonl
touch "$inbox"

# The session is kept (-c): what comes while nobody listens, comes later. jq drops what has a known pos.
listen() {
    seen=$(jq -s 'map(.pos) | max // 0' "$inbox")
    mosquitto_sub "${where[@]}" -i "$device" -c "${kept[@]}" -q 1 -t "im/v1/$user/down" 2>/dev/null |
        jq --unbuffered -nc --argjson seen "$seen" \
            'foreach inputs as $item ([$seen, null]; if ($item.pos // 0) > .[0] then [$item.pos, $item] else [.[0], null] end; .[1] // empty)' |
        while read -r item; do
            printf '%s\n' "$item" >>"$inbox"
            jq -r --arg user "$user" 'select(.op == "msg" and .body and .from != $user) | "\(.from): \(.body)"' <<<"$item"
        done
}
while true; do listen; sleep 1; done &
listener=$!
trap 'kill $listener; pkill -P $listener 2>/dev/null' EXIT

while IFS= read -r text; do
    request=$(jq -cn --arg id "$(cat /proc/sys/kernel/random/uuid)" --arg to "$peer" --arg body "$text" \
        '{op: "send", id: $id, to: $to, body: $body}')
    # It returns at the PUBACK, which is there once the message is on the server's disk. The same id again changes nothing.
    until timeout 10 mosquitto_pub "${where[@]}" -i "$device-out" -q 1 -t "im/v1/$user/$device-out/up" -m "$request" 2>/dev/null; do
        sleep 1
    done
done
