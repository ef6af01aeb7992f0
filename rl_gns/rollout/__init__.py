"""Collecting experience: collectors of columns, and the sources that hand their segments to a trainer."""
