"""Shared by the benchmarks; run them with `make bench`."""
