"""Pictures of the marts: `pipeline report`, and the page of the board.

`questions` asks a warehouse, `pictures` has one function for each picture, `charts` draws.
"""
