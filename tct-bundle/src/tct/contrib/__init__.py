"""Bridges to other libraries. Nothing else in tct imports them, because the libraries are optional."""
