"""Who may ask for what: tenants, API keys, tokens, grants, and the Redis users that keep tenants apart."""
