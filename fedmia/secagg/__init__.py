"""What secure aggregation is made of: keys, masks, shares, the graph, fixed point, noise.

Nothing here sends a message: ``member`` and ``combiner`` are the two sides of the protocol as
functions of what they were told; ``clients.defenses.secagg_plus`` and ``strategies.secagg_plus``
carry it over Flower's messages. Every secret comes from the operating system and every primitive
from the ``cryptography`` package; the secret sharing and the integer samplers are the house's own.
"""
