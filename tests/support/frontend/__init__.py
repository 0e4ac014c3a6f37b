"""The host's real frontend in a real browser: open workflows, run them, read what their nodes show."""
