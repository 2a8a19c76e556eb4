"""What operators and services ask of a sidecar: documents, services, status, events."""
