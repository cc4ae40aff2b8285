from contextvars import ContextVar

from app.threads import Pool

whose: ContextVar[str] = ContextVar("whose", default="nobody")


def test_thread_sees_the_context_of_each_giver() -> None:
    with Pool(1) as pool:
        token = whose.set("first")
        first = pool.submit(whose.get).result()
        whose.reset(token)
        assert (first, pool.submit(whose.get).result()) == ("first", "nobody")


def test_arguments_and_errors_pass() -> None:
    with Pool(1) as pool:
        assert pool.submit(int, "ff", base=16).result() == 255
        assert isinstance(pool.submit(int, "x").exception(), ValueError)
