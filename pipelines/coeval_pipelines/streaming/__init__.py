"""Kafka to Flink to changelog topics to the online store."""
