"""Parity: every served value equals what training would have used, or the difference is explained, or it fails."""
