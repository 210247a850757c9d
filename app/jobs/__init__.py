"""What runs on a schedule: one job, one transaction, one commit."""
