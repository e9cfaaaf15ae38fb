"""What a key may ask for at most. Nothing here counts anything."""

from __future__ import annotations

from dataclasses import dataclass

MAX_RATE = 1_000_000_000
"""The largest limit; beyond it the clock would be too coarse to count by."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits of one key; None where there is none."""

    rpm: int | None = None
    """Requests a minute."""
    tpm: int | None = None
    """Tokens a minute: those of prompts and of replies."""
    concurrent: int | None = None
    """Requests at the same time."""

    def __bool__(self) -> bool:
        """Say whether anything is limited."""
        return self != NO_LIMITS

    def over(self, defaults: RateLimits) -> RateLimits:
        """Return these limits, with the defaults where they say nothing."""
        return RateLimits(
            rpm=self.rpm or defaults.rpm,
            tpm=self.tpm or defaults.tpm,
            concurrent=self.concurrent or defaults.concurrent,
        )


NO_LIMITS = RateLimits()
