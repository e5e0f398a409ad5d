"""Finds what is wrong with a data set before a network learns it."""

from expressivegan.data.doctor.finding import Diagnosis, Figure, Finding, Picture, Table

__all__ = ["Diagnosis", "Figure", "Finding", "Picture", "Table"]
