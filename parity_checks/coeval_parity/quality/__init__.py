"""Data quality: rules from the manifest and of one's own, checked by Great Expectations; what fails is quarantined."""
