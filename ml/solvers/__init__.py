"""How weights follow from gradients: optimisers, learning-rate policies, and one object that joins them."""

from ml.solvers.solver import Solver

__all__ = ["Solver"]
