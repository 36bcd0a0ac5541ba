"""Tensors: handles on nodes, functions of them, and programs traced from them."""
