"""Torch source of the engines and of the reference: tested here, copied into build folders.

Every file imports only torch, the standard library and its siblings.
"""
