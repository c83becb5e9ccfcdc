"""What an auditor plants in a federation: clients that are watched, and records asked about."""
