"""What is kept of units beside the database, where a request may ask for it."""
