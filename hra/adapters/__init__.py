"""What tasks own and share: adapter families, and spaces of tasks."""
