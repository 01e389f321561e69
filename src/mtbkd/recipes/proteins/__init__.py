"""Proteins as numbers: residues, scales, motifs and the features made of them."""
