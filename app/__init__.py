"""The shell: everything that reads a clock, a socket, a disk or a database."""
