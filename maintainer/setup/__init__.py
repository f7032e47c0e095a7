"""What helps to set a run up: the effective settings, workflows to copy, and a check of both."""
