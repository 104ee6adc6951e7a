"""The board: a web page that shows every month, and that starts runs if it is allowed to.

Promise: it changes nothing itself, and answers only those who have its link. Two processes share the work, so that an
idle board needs little memory: this one serves pages, and `pipeline.board.answers` asks the lake and the warehouse.
"""
