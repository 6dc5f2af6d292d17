"""Trainings that the tests of the gradient exchange run on real ranks."""
