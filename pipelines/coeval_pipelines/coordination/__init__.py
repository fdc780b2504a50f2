"""Who owns which tiles: deployment, handoff between batch and stream, healing. It knows the engines' front doors."""
