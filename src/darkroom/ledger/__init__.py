"""The ledger: keys, credits and jobs, kept in SQL. The ledger is the queue."""
