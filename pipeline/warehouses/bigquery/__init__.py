"""The warehouse in a dataset of BigQuery: jobs, schemas, tables, SQL, the contract."""
