"""Grounds, and families on them."""
