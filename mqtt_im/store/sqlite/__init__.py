"""The store on SQLite: a log, and projections of it that are written lazily."""
