"""Drift: does a window of values still look like its baseline, by more than chance and the week's rhythm explain?"""
