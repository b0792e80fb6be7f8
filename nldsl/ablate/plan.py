"""The plan of an ablation: which variants it makes."""

from nldsl.resolve.ablations import MOST, Planned, count, variants

__all__ = ["MOST", "Planned", "count", "variants"]
