"""What exists of every month, what is out of date, and what is deleted before it is done again. No Luigi, no CLI.

Promise: asking changes nothing, and asks in bulk: one listing of each folder, one reading of the records.
"""
