"""Shared by the integration tests: the server under test, HTTP by hand, models with known answers."""
