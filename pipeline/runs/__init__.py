"""A run, from its tasks to its exit code, and the history of runs.

Promise: what became of each step is known at the end of a run, however it ended.
"""
