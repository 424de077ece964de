"""What `store check` is made of: a report, the numbers that records give out, and how two projections are compared."""
