"""Adapters: all that knows a vendor."""
