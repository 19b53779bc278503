"""What all configs share: how a value out of its range is refused."""

from dataclasses import dataclass

from deep_ranking.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Config:
    """A set of settings, each checked when it is made."""

    def __post_init__(self) -> None:
        """Check what needs no look at a file; each class adds its own checks."""

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise InputError(f"{name} must lie between {low} and {high}. Received: {value}")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise InputError(f"{name} must be one of {', '.join(choices)}. Received: {value}")

    def _check_counts(self, *names: str, low: int = 1) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"{name} must be {low} or more. Received: {value}")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be above 0. Received: {value}")
