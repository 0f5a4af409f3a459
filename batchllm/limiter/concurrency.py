"""How many may be in flight."""

START = 16
MOST = 256


class Concurrency:
    """The cap on requests in flight.

    Args:
        explicit: The user's number, exact from the first second; ``None`` finds one.
    """

    def __init__(self, explicit: int | None) -> None:
        self.cap = explicit or START
