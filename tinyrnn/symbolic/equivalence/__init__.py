"""Whether two cells are one, and how their parameters correspond."""
