"""What the command lines call: train, test, inference."""
