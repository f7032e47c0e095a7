"""The pages of the service, for people, probes and Prometheus."""
