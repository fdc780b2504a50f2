"""A payments company in small: its catalog, a seeded generator of its events at any size, and their way into Kafka."""
