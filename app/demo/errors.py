"""What can go wrong in the demonstration."""


class DemoFailed(Exception):
    """The story did not come to its end. `log` holds the last lines of the program that has to do with it."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log
