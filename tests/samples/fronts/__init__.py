"""One suite against every front of the ledger, on both databases."""
