"""Tiny models of the host's real families, with random weights: what `make matrix` runs every node on.

`files`: checkpoints written to disk and found out about by the host's own loader. `built`: the host's own
classes at a size that its file detection does not know. `cells`: what every node must do on every one.
"""
