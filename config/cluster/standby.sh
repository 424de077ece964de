#!/bin/sh
# Makes a standby of the primary in an empty $PGDATA, and runs it. To promote it: SELECT pg_promote();
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    until pg_basebackup -h "$PRIMARY_HOST" -p "${PRIMARY_PORT:-5432}" -U standby -D "$PGDATA" -R -X stream -c fast; do sleep 1; done
    chmod 700 "$PGDATA"
fi
# Once promoted it has no standby of its own, and must wait for none.
exec postgres -D "$PGDATA" -c synchronous_standby_names= -c listen_addresses='*' "$@"
