"""What nodes on one database tell each other. A server alone has `Neighbours`, which costs it nothing."""

from .neighbours import Neighbours

__all__ = ["Neighbours"]
