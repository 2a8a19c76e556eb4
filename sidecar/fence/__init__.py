"""The fence: a separate process that stops what this host may no longer do.

Code map: `fence_process` is the program (standard library only, imports nothing
of Trellis), `client` is the sidecar's end of its socket.
"""
