"""Many runs of one experiment: planned first, then run on this machine."""
