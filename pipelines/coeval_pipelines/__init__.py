"""Engines and their coordination: catalog, streaming, offline, local stack."""
