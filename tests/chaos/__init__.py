"""Chaos: a whole stack under kill -9, wipes, pauses and a full disk, and the proof that nothing is lost or doubled."""
