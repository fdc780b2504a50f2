"""Who owns which tiles: deployment, handoff from batch to stream, healing."""
