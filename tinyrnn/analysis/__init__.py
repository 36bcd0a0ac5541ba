"""What a graph says about a network: recurrences walked forward and back, measures, paths."""
