"""Names that users hold and that were renamed: the old one works on, with one warning, until a version that is said.

For settings, options, parameters and Python names alike: where the old name is read, call `warn_of_old_name`, and use
its value as that of the new name.
"""

from __future__ import annotations

import logging
from functools import cache

#: The old name, the new one, and the version that removes the old one: two minor versions after the renaming.
OLD_NAMES = {
    "[resources] warehouse in luigi.cfg": ("[resources] duckdb, postgresql and bigquery", "0.4.0"),
}


@cache
def warn_of_old_name(old: str) -> None:
    """Warn, once in a process, that this name is an old one."""
    new, removed_in = OLD_NAMES[old]
    logger = logging.getLogger("luigi-interface.pipeline")
    logger.warning(f"{old} is an old name of {new}; it works until version {removed_in}, so write the new name")
