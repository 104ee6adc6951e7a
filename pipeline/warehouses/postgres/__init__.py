"""The warehouse in a Postgres database: connections, partitions, rows, the contract."""
