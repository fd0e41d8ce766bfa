"""The flow network, its objective path and its solvers."""
