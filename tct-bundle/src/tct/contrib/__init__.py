"""Bridges to other libraries. Each module needs its library; import only those that you use."""
