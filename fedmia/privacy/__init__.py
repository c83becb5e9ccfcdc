"""Differential privacy: what releases cost, how much noise a budget takes, and where noise comes from.

Parts that add noise (strategies, mods) say what they promise as :class:`fedmia.privacy.claim.Claim`;
every ε in the project comes from :mod:`fedmia.privacy.accounting`.
"""
