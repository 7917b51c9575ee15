"""Synthetic head CTA from a seed: anatomy, aneurysms, confounders, scanner, with its ground truth."""

from training.phantom.dicom import write_series
from training.phantom.make import make_scan
from training.phantom.picture import picture
from training.phantom.scan import PhantomScan, TrueLesion

__all__ = ["PhantomScan", "TrueLesion", "make_scan", "picture", "write_series"]
