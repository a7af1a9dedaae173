"""How a network is trained: optimizers, schedules, run state, checkpoints, what watches a run."""
