"""Figures against known answers, and between outputs of the same rows.

The figures are formulas of a line or two, held equal to those of scikit-learn, scipy and sacrebleu by the tests.
"""
