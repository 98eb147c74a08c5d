from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from darkroom.cli.console import credits_of, show


@given(st.integers(0, 10**18))
def test_credits_are_exact(micro):
    """What is printed is the amount, to the last micro-credit."""
    assert Decimal(credits_of(micro).replace(",", "")) * 1_000_000 == micro


def test_text_in_a_table_is_shown_as_it_is(capsys):
    """What looks like markup in a name or description is not taken for it."""
    show(("name",), [("[bold]x[/bold] :smile:",)])
    assert "[bold]x[/bold] :smile:" in capsys.readouterr().out
