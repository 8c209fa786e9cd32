"""What the integration tests share: the server under test, HTTP by hand, models with known answers."""
