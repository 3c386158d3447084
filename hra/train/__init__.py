"""State, optimizers, the pure step, and the loop with every side effect."""
