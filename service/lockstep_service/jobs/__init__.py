"""What a person submitted, and what became of it."""
