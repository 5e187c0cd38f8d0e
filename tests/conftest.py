"""Beside the tests, so that they find `checks` and each other's helpers here."""
