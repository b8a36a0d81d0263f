"""Evaluate recordings: every frame of a bag once, the same result every time, with or without labels."""
