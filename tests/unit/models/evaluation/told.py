"""What a long measurement tells, kept."""


class Told:
    """Keep the steps that are told of, and stop nothing."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def __call__(self, message: str) -> None:
        self.steps.append(message)

    def check(self) -> None: ...
