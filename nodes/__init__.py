"""The nodes: thin, and without mathematics. `NODES` of every module here is what the pack offers."""
