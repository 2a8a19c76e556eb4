"""Who is who in a cluster: its authority, its certificates, join tokens, and who may call what.

Code map: `names` how identities are written, `authority` what signs them,
`keys` keys and certificate requests, `token` what a joining host is given,
`sealed` secrets at rest, `files` the identity of this host on disk,
`credentials` what gRPC is given, `proof` what the certificate of a peer says,
`table` which role may call which method, `interceptor` the check on every call.
"""
