"""Finds what is wrong with a data set before a network learns it."""

from expressivegan.data.doctor.case import Case, open_case
from expressivegan.data.doctor.finding import Diagnosis, Figure, Finding, Picture, Severity, Table
from expressivegan.data.doctor.run import CHECKS, diagnose

__all__ = [
    "CHECKS",
    "Case",
    "Diagnosis",
    "Figure",
    "Finding",
    "Picture",
    "Severity",
    "Table",
    "diagnose",
    "open_case",
]
