"""One published file, over HTTP or from a folder: resumed, retried, verified.

Promise: a returned file is whole and is one published version; everything else is an error. Received bytes are resumed.
"""
