"""Scoring generated images: samples, features by extractors, figures by metrics, protocols.

`Scorer` turns samplers into scores for the record.  What is compared (`metrics`) and by whose
features (`extractors`) are components, one class a file; a score's `Protocol` says how it was made,
and only figures of equal protocols compare.
"""
