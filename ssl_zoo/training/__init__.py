"""What a run needs around its Learner: budget, checkpoints, run folder, loggers, signals, hardware."""
