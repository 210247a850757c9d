"""The demonstration: real data, real endpoints, and a Kingmaker that is started as a user would start it."""
