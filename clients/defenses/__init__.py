"""Client-side defences, each a Flower mod."""
