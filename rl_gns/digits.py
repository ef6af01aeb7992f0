"""Numbers as people read them."""


def round3(value: float) -> str:
    """Three significant digits, with thousands separators."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """`449 [397 to 507]`, or what is known of it."""
    if value is None:
        return f"at least {round3(low)}" if low else "unknown"
    least = "no lower limit" if low is None else round3(low)
    return f"{round3(value)} [{least} to {'no upper limit' if high is None else round3(high)}]"
