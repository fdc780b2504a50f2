"""The feature server: the SDK over HTTP, for everyone who is not Python. Tenants, credentials, limits."""
