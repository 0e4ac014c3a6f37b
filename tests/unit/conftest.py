"""The host and the pack, for the imports of the unit tests."""

from support import bootstrap  # noqa: F401
