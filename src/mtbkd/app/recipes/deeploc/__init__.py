"""Recipes on DeepLoc 2.0: where do proteins go in the cell?"""
