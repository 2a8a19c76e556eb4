"""What the hosts of a Trellis cluster agree on, and how they talk to each other."""
