"""Teaching: a computation as on paper, and derivations that students write, judged by proof."""
