"""What all configs share: how a value out of its range is refused."""

from dataclasses import dataclass

from deep_ranking.files import InputError


def check_counts(**counts: int) -> None:
    """Check that counts are 1 or more.

    Raises:
        InputError: one is not, and which.
    """
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} must be 1 or more. Received: {count}")


def check_share(name: str, share: float) -> None:
    """Check that a share lies from 0 to 1.

    Raises:
        InputError: it does not.
    """
    if not 0 <= share <= 1:
        raise InputError(f"{name} must lie from 0 to 1. Received: {share}")


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
