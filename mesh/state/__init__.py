"""The replicated state machine: what every host of the cluster agrees on."""
