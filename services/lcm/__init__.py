"""Lifecycle manager: deployments of workloads that the mesh runs as services."""
