"""A clock that only moves by hand."""


class Clock:
    """Called like `boot_clock`; stands still between moves."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds
