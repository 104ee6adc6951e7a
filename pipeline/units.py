"""Numbers with their unit, for messages."""

from __future__ import annotations

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def size(count: float) -> str:
    """A number of bytes in the unit that leaves one to three digits before the point."""
    for unit, name in _UNITS:
        if count >= 0.99995 * unit:  # Less would be shown as 1,000.0 of the smaller unit.
            return f"{count / unit:,.1f} {name}"
    return f"{count:,.0f} bytes"


def counted(count: int, noun: str) -> str:
    """For instance 1 month, 2 months."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
