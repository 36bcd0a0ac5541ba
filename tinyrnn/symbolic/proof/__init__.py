"""Proofs: gradients are derivatives, passes keep every value, programs compute their graphs."""
