"""The operations of the control plane, one file per thing that they are about."""
