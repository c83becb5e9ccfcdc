"""Results for a person: tables on the terminal, and one page to keep."""
