"""Client side: how a client trains, and the mods that defend it or turn it malicious."""
