"""Experiments that test the claims of the README."""
