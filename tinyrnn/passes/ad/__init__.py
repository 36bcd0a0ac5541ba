"""Derivatives of graphs as graphs: adjoints, tangents, and what scans and regions do with both."""
