"""Clients that attack, each a Flower mod around the client that it turns."""
