"""The warehouse in one DuckDB file: the file and its lock, its dialect of the shared schema, the contract."""
