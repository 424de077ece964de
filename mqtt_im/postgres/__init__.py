"""PostgreSQL, for whatever keeps things there: how it is reached, what is made in it, and how its failures are told.

psycopg is an extra; only a server whose `store.url` names PostgreSQL imports this package.
"""
