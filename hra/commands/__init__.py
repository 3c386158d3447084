"""One absl main per verb; flags live here and nowhere else."""
