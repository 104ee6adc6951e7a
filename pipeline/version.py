"""The version; setup.cfg and all records read it from here."""

__version__ = "0.2.0"
