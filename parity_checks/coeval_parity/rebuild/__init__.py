"""Rebuild parity: a training set that is built again from its lineage has the same content."""
