"""The DICOM node: everything that talks to a network, a person or a clock."""
