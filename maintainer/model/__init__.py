"""The values that the stages of a run hand on. Pure: no I/O, no clock, no logging."""
