"""Folders, archives and phantoms → manifest → tensors."""

from expressivegan.data.decode import Fit
from expressivegan.data.load import ImageSet, load_images
from expressivegan.data.manifest import GROUPS, Manifest, Record, Rejected
from expressivegan.data.phantom import Phantom, draw
from expressivegan.data.prepare import Prepared, prepare
from expressivegan.data.scan import read_manifest

__all__ = [
    "GROUPS",
    "Fit",
    "ImageSet",
    "Manifest",
    "Phantom",
    "Prepared",
    "Record",
    "Rejected",
    "draw",
    "load_images",
    "prepare",
    "read_manifest",
]
