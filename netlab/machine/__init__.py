"""Where commands run: this machine, a guest, another one. Knows nothing of nodes."""
