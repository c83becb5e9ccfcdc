"""Clients that an auditor plants, to see what training shows of them."""
