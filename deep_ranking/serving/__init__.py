"""A server of open collections: an HTTP API to search them, and a client of it."""
