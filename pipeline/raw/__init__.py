"""A raw file (Parquet; CSV, gzipped or not) as a stream of Arrow batches with the names and types it came with.

Promise: every row of the file is in the stream, in the file's order, or the file is refused with the reason.
"""
