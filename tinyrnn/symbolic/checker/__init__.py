"""A second, small opinion: certificates verified without the engine.

Nothing here imports the graph, its ops or its passes.  A certificate holds the equations of a cell as text and, as
plain instructions, the program that claims to compute its gradients.  The equations are evaluated one example at a
time, straight from their terms, at new random points modulo two new primes, with tangents; the program is run by the
interpreter below at the same point; and both sides of

    Σ_w <dloss/dw, v_w>  =  d/ds loss(w + s v)

must be one number.  Every number carries its own bound of the degree, so that the error bound is the checker's own.
"""

from .certificates import Verdict, check, check_file

__all__ = ["Verdict", "check", "check_file"]
