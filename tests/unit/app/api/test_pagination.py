import pytest

from app.api.pagination import Page, page


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], Page(data=[], has_more=False, next_cursor=None)),
        ([1, 2], Page(data=["1", "2"], has_more=False, next_cursor=None)),
        ([1, 2, 3], Page(data=["1", "2"], has_more=True, next_cursor="20")),
    ],
)
def test_one_row_more_says_that_there_is_more(rows: list[int], expected: Page[str]) -> None:
    assert page(rows, 2, cursor=lambda row: row * 10, item=str) == expected
