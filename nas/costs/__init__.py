"""Costs of a network before it is trained, in closed form."""
