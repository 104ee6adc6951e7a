"""What exists of every month, what is stale, and what is deleted before it is done again. No Luigi, no CLI.

Promise: questions change nothing and are asked in bulk: one listing of each folder, one query for the records.
"""
