"""The demo: the whole main job on real purchases, through real engines, in one command."""
