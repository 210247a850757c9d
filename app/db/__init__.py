"""The only place with SQL: one file per aggregate."""
