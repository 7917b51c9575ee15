"""Cubes around candidates, drawn at 0.5 mm, for the second stage to learn from: sacs, and what passes for them."""
