"""A day of a hospital in hours: `make soak`."""
