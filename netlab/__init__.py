"""netlab: TCP/IP experiments on real Linux networks, recorded and checked."""
