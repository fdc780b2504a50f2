"""The seeded fault study: each fault is put into a sound world, and parity has to find it and give it its name."""
