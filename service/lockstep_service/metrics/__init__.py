"""What the ranks report: taking it in, and giving it out as series."""
