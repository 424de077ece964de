"""The store on PostgreSQL: plain tables, changed in one transaction a batch, by any number of nodes (docs/cluster.md)."""
