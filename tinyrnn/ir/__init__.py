"""What is computed: ops, nodes, closed bodies, graphs."""

from .check import check
from .graph import Graph, Label
from .node import Node

__all__ = ["Graph", "Label", "Node", "check"]
