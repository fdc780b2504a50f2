"""Training sets: a spine, the features that were known at each of its instants, and what both are made of."""
