"""What tests share: the parts of the machine that they start, and the rule about skips."""
