"""Numbers as people read them."""


def round3(value: float) -> str:
    """Three significant digits, with thousands separators."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"
