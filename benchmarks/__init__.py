"""What is measured, and against whom: `make bench` runs it all, prints a table and writes JSON."""
