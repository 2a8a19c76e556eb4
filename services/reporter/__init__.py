"""An active-standby example: one instance in the cluster acts, and proves it."""
