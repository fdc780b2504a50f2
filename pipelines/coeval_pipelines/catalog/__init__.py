"""Feast objects to the manifest: compile and validate."""
