"""Tests of tinyrnn.  Oracles that share no code with what they judge: complex step, PyTorch, plain NumPy."""
