"""Tiny models of the host's real families, with random weights: what `make matrix` runs every node on."""
