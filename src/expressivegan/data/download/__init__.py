"""Data sets from their official homes: resumed, checked, and with their licence beside them."""

from expressivegan.data.download.homes import HOMES, Home
from expressivegan.data.download.run import download

__all__ = ["HOMES", "Home", "download"]
