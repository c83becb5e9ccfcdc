"""Differential privacy: what releases cost, and where noise comes from.

Parts that add noise say what they promise as :class:`fedmia.privacy.claim.Claim`;
every ε in the project comes from :mod:`fedmia.privacy.accounting`.
"""
