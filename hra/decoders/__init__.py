"""Hidden frames -> losses and labels."""
