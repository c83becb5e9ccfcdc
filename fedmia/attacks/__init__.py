"""Membership-inference attacks, one paper a file: signals in, one score a candidate out."""
