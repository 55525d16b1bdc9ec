"""Fixtures of the tests that pretend a GPU."""

from pretend_cuda import flash_twin, pretended_gpu

__all__ = ["flash_twin", "pretended_gpu"]
