"""What commands ask of a store, whichever it is: a check's report, what a user keeps, all of it as rows for a copy."""
