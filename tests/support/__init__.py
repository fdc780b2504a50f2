"""What tests of several rooms share: a small catalog and a generator of events. Real components only."""
