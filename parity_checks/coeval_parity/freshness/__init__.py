"""Freshness: how old in event time what readers get is, by view and partition, against what each view promises."""
