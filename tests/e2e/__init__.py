"""End-to-end tests: a real server over HTTP and websocket, and the real frontend in a real browser."""
