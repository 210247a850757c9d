"""The data plane: assign, forward, answer, record. No FastAPI, no SQL."""
