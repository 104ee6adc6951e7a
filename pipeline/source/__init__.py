"""One published file, over HTTP or from a folder: resumed, retried, verified.

Promise: what is kept is the whole file as one version of it was published, or an error; bytes that arrived are resumed.
"""
