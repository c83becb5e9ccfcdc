"""Membership-inference attacks, one paper a file: reductions of signals to one score a candidate."""
