"""Trainings that make the shipped checkpoints, each a program: python3 -m moed.recipes.NAME --help."""
