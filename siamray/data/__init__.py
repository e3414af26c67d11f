"""Exams of any source go in; aligned pairs of left and right patches come out."""
