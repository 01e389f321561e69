"""Carries a comparison out, several worlds at a time, and writes down what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from mtbkd.app.bench.cells import carry_out, missing
from mtbkd.app.bench.plan import Plan, seconds_left
from mtbkd.app.bench.tables import write_results
from mtbkd.types import Report, quiet, refuse

Tell = Callable[[str], None]
"""Called with a line to show."""


def run_bench(plan: Plan, jobs: int, tell: Tell, report: Report = quiet) -> None:
    """Make the cells that are missing, then the table of all, and what is made of it.

    Each world is one job, whose methods follow each other, so a killed comparison loses the cells
    that were being made; a chain within them goes on where it was.

    Args:
        plan: What is wanted.
        jobs: Worlds that are worked on at a time, each in a process of one thread.
        tell: Told the estimate, what is left out, and where the results are.
        report: Told of worlds that are done.

    Raises:
        InputError: If cells were changed or made with other settings, or none could be made.
    """
    todo = [(order, names) for order in plan.orders if (names := missing(order))]
    n_all, n_left = sum(len(o.methods) for o in plan.orders), sum(len(n) for _, n in todo)
    minutes = seconds_left(plan.orders) / 60 / max(1, min(jobs, len(todo)))
    tell(
        f"{n_left} of {n_all} cells are to be made, in about {minutes:,.0f} min with {jobs} "
        f"{'process' if jobs == 1 else 'processes'} on cores that nobody else uses"
    )
    for done, line in enumerate(_carried_out([order for order, _ in todo], jobs), start=1):
        report("worlds", done, len(todo))
        for one in line:
            tell(one)
    cells = [o.cell(m) for o in plan.orders for m in o.methods if o.cell(m).exists()]
    if not cells:
        refuse(
            f"Expected a cell or more in {plan.out}, but all were left out for the reasons above. "
            "Mend one of them."
        )
    for path in write_results(cells, plan.out):
        tell(f"written: {path}")


def _carried_out(orders: list, jobs: int) -> Iterator[list[str]]:
    """What was left out of each world, as they are done."""
    if jobs == 1 or len(orders) <= 1:
        yield from map(carry_out, orders)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(carry_out, order) for order in orders]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
