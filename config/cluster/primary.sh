#!/bin/sh
# Runs once, when the primary is made: the database of the nodes, and who may follow it. From its next start on a commit waits
# for a standby.
set -eu
psql --quiet --no-psqlrc -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d postgres <<SQL
CREATE ROLE im LOGIN PASSWORD '$IM_PASSWORD';
CREATE DATABASE im OWNER im;
GRANT pg_monitor TO im;
CREATE ROLE standby LOGIN REPLICATION PASSWORD '$STANDBY_PASSWORD';
ALTER SYSTEM SET synchronous_standby_names = '*';
SQL
echo "host replication standby all scram-sha-256" >>"$PGDATA/pg_hba.conf"
