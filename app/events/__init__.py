"""The event log: from a gateway's disk to the database, each event once."""
