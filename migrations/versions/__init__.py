"""One file per step of the schema, in the order in which they are applied."""
