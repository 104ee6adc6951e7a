"""The web page over the months.

Two processes: the board, which needs little memory, and the process that answers its questions about lake and warehouse
(`answers.py`, asked by `questions.py`), which ends when nobody asks.
"""
