"""What one training is; imports nothing else of labkit."""
