"""How a training runs: the loop, its hooks, its checkpoints, and the child process that speaks for it."""
