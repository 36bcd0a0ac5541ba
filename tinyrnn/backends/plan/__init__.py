"""The kernel plan: a graph as calls of kernels over views of buffers, with loops over time."""
