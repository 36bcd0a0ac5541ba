"""The backward pass of a cell as equations."""
