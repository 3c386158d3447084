"""New tasks for a finished run, and tasks that it forgets."""
