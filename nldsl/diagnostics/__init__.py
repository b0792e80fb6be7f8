"""Findings: the value, the registry of codes, the renderers and the fixes."""
