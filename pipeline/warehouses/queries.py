"""What a query may be, before any engine runs it: one statement that only reads, or EXPLAIN of one."""

from __future__ import annotations

import re

from pipeline.errors import UsageError

_COMMENTS = r"(?:\s|--[^\r\n]*|/\*.*?\*/)*"
_EXPLAIN = r"EXPLAIN\b(?:\s+(?:ANALYZE|VERBOSE)\b)*(?:\s*\((?!\s*(?:SELECT|FROM|WITH|VALUES|TABLE)\b)[\w\s,]*\))?"
_START = re.compile(rf"{_COMMENTS}({_EXPLAIN})?{_COMMENTS}", re.IGNORECASE | re.DOTALL)


def split_explain(sql: str) -> tuple[str, str]:
    """EXPLAIN with its options, empty without one, and the statement after it; comments before either are dropped.

    An engine is given these two parts, never the original text. So it cannot read comments or EXPLAIN in another way
    than this does, and what was checked is what runs.
    """
    found = _START.match(sql)
    assert found is not None
    return found[1] or "", sql[found.end() :]


def refuse(what: str, remedy: str = "") -> UsageError:
    """The error for a query that is not allowed."""
    return UsageError(f"query: {what}: allowed is one statement that only reads, such as SELECT … FROM trips{remedy}")
