"""What can be asked of the daemon: each method declared once, with typed arguments and result.

One module per noun. Free of transport and of what answers (`handlers`), so that the RPC, the
gateway, clients and the manual can all read the same declarations.
"""
