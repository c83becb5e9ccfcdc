"""What is done to the outputs of the final model before anybody sees them, one release a file."""
