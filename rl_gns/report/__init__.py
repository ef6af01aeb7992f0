"""Figures, tables and one HTML page, made from run directories alone."""
