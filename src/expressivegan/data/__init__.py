"""Folders, archives and phantoms → manifest → tensors."""

from expressivegan.data.decode import Fit
from expressivegan.data.load import ImageSet, load_images
from expressivegan.data.manifest import GROUPS, Manifest, Record, Rejected
from expressivegan.data.phantom import Phantom, draw
from expressivegan.data.scan import read_manifest

__all__ = [
    "GROUPS",
    "Fit",
    "ImageSet",
    "Manifest",
    "Phantom",
    "Record",
    "Rejected",
    "draw",
    "load_images",
    "read_manifest",
]
