"""Which SQL a query may be, on any engine: one read-only statement, or EXPLAIN of one."""

from __future__ import annotations

import re

from pipeline.errors import UsageError

_COMMENTS = r"(?:\s|--[^\r\n]*|/\*.*?\*/)*"
_EXPLAIN = r"EXPLAIN\b(?:\s+(?:ANALYZE|VERBOSE)\b)*(?:\s*\((?!\s*(?:SELECT|FROM|WITH|VALUES|TABLE)\b)[\w\s,]*\))?"
_START = re.compile(rf"{_COMMENTS}({_EXPLAIN})?{_COMMENTS}", re.IGNORECASE | re.DOTALL)


def split_explain(sql: str) -> tuple[str, str]:
    """EXPLAIN with its options (or an empty text), and the statement after it; comments before them are removed.

    Run these two parts, never the original text: an engine could read its comments or EXPLAIN differently, and then
    run something that was not checked.
    """
    match = _START.match(sql)
    assert match is not None
    return match[1] or "", sql[match.end() :]


def refuse(statement: str, remedy: str = "") -> UsageError:
    """The error for a query that is not allowed."""
    return UsageError(
        f"query: {statement}: allowed is one statement that only reads, such as SELECT … FROM trips{remedy}"
    )
