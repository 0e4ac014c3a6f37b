"""The papers' protocol on a checkpoint of your own: docs/protocol.md. The host has a module called `protocol`."""
