"""Small tables of the server's parts, each in an SQLite file of its own or in a schema of PostgreSQL."""
