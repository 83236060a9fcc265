"""An embedder behind HTTP, and the server for it: one protocol, both ends.

Knows no more than that both ends are here; must not import either before it is asked for.
"""
