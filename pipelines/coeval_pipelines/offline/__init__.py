"""Spark: event log, as-of joins, windows, tiles, training sets, online load."""
