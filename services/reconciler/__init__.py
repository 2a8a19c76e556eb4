"""Drives deployments from requested to running, and heals them; one instance in the cluster acts."""
