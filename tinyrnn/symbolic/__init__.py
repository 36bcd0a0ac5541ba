"""Calculus on graphs: proofs that gradients are derivatives, cells shown equal or told apart, derivations printed."""
