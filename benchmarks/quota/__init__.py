"""How many results builds find under a quota, whatever chooses what stays: `benchmarks.quota`."""
