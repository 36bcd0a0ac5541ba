"""Pictures: of cells folded and unrolled, of graphs, of models, and pages that step through a run."""
