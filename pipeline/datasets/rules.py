"""The limits of a plausible month, shared by the datasets, each with what the real months have.

The evidence is 15 Parquet months of green, 2020-04 to 2025-07, and three as CSV, 35,612 to 83,130 rows each. An error
stops the month; a warning is kept and shown. The limits leave room for what is odd but real.
"""

from __future__ import annotations

from pipeline.datasets.base import Rule

#: The marts have the same limit. DECIMAL(18, 2) holds less than 1e16, and the sum of a month's counts 64 bits.
LARGEST_NUMBER = 1_000_000_000

NO_ROWS = Rule("no_rows", "error", "rows", at_least=1, doc="rows in the month")

TRIP_RULES = (
    NO_ROWS,
    # A file under another month's name has nearly all its pickups outside; the worst real month has 0.09 %.
    Rule(
        "wrong_month",
        "error",
        "pickups_outside_month",
        at_most_share=0.5,
        doc="pickups outside the month (another month's file?)",
    ),
    # At most 43 of 48,326 (2025-01): 0.09 %.
    Rule("stray_pickups", "warning", "pickups_outside_month", at_most_share=0.002, doc="pickups outside the month"),
    # Mostly none; 0.03 % in 2020-04 and 0.45 % in 2025-02, both of vendor 6, whose minutes are wrong: worth a warning.
    Rule(
        "negative_durations", "warning", "dropoffs_before_pickups", at_most_share=0.002, doc="drop-offs before pickups"
    ),
    # Zone ids are 1 to 265 in all months of green; fhv has zone 0 in 2017.
    Rule("unknown_zones", "warning", "unknown_zones", at_most_share=0.001, doc="zone ids outside 1 to 265"),
    # None in the real months, with vendors 4 and 5 and rate 99 in the lists.
    Rule("unknown_codes", "warning", "unknown_codes", at_most_share=0.001, doc="codes that the code lists lack"),
    # None in the real months.
    Rule(
        "huge_numbers",
        "warning",
        "huge_numbers",
        at_most=0,
        doc=f"numbers beyond ±{LARGEST_NUMBER:,}, which the marts leave out",
    ),
    Rule("published_rows", "warning", "rows_off_published", at_most=0, doc="rows more or fewer than TLC published"),
)

# Refunds and voided trips: 0.17 % to 0.36 %.
NEGATIVE_TOTALS = Rule("negative_totals", "warning", "negative_totals", at_most_share=0.02, doc="negative totals")
