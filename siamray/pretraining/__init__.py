"""Pretraining: patch pairs in, an encoder and everything measured on its way out."""
