"""Tokens: sources fetch them, stores keep them, the holder chooses."""
