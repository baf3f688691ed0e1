"""Pictures for people to look at."""

from .contact_sheet import contact_sheet

__all__ = ['contact_sheet']
