"""The control plane: the admin API over HTTP."""
