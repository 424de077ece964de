"""What the stores do alike: each engine is made with these, whichever it is; ledger, jobs and queries know none of them."""
