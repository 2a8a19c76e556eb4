"""Programs the mesh runs; each is also an example of how to write one."""
