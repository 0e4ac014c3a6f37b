"""The pack's nodes: a schema, then `execute`. Every module but schema.py lists them in `NODES`."""
