"""What is done with the benches' figures: budgets judged, a page written.  Nothing is measured."""

from __future__ import annotations

import re

import pytest

from bench import check, figures, report, side_by_side
from bench.check import MET, NOT_MEASURED, SHORT, Budget, judge
from bench.colours import COLOURS, OURS, colours, family, ours
from bench.figures import FOLDER, NS, OCTETS, RATIO, SECONDS, Measured, Options, measured
from bench.units import amount, convert, fitting, number, unit_of

BUDGET = Budget(
    name="a budget",
    job="job",
    what=["what"],
    variant="h2lite",
    direction="at most",
    limit=1.3,
    unit=RATIO,
    value="p50",
    over=["floor"],
    minus="",
    load=None,
    fold="greatest",
    stretch=1.15,
    firm=False,
    others="",
)
AROUND = {
    "machine": "2 cores",
    "python": "CPython 3.11.7",
    "built": "GCC 12.2.0",
    "commit": "0123456789ab",
    "date": "2026-01-02",
    "versions": {"h2lite": "0.1.0", "OpenSSL": "OpenSSL 3.0.19"},
    "pinning": "same",
}


def line(variant: str, *rounds: float, what: str = "what", unit: str = NS) -> Measured:
    return measured(what, variant, list(rounds), unit=unit, rounds=list(rounds))


# -- figures in words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.03124, "0.0312"),
        (1, "1.00"),
        (8.236, "8.24"),
        (-11.69, "-11.7"),
        (99.96, "100"),
        (999.6, "1 000"),
        (51234, "51 200"),
        (float("inf"), "inf"),
    ],
)
def test_a_number_has_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.25, NS, "0.250 ns"),
        (512.4, NS, "512 ns"),
        (8236, NS, "8.24 us"),
        (2.5e6, NS, "2.50 ms"),
        (1.5e9, NS, "1.50 s"),
        (0.0042, SECONDS, "4.20 ms"),
        (900, OCTETS, "900 octets"),
        (3072, OCTETS, "3.00 KiB"),
        (1.5 * 2**20, OCTETS, "1.50 MiB"),
        (1.194, RATIO, "1.19 x"),
        (835.09, "MB/s", "835 MB/s"),
        (0, NS, "0 ns"),
    ],
)
def test_an_amount_is_told_in_the_unit_that_fits_it(value, unit, text):
    assert amount(value, unit) == text
    assert text.endswith(fitting(value, unit))


def test_what_is_mostly_nothing_is_told_in_the_unit_of_the_rest():
    nothing = line("h2lite", 0.0, 0.0, 0.004, unit=SECONDS)

    assert unit_of([nothing]) == "ms"
    assert unit_of([nothing, line("go", 0.5, 2.0, 3.0, unit=SECONDS)]) == "s"


def test_no_size_is_told_as_a_time():
    assert convert(2, SECONDS, "ms") == 2000
    with pytest.raises(ValueError, match="octets cannot be told in us"):
        convert(2, OCTETS, "us")


# -- budgets -----------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    results = [line("floor", 10, 20, 30), line("h2lite", 12, 25, 39)]

    verdict = judge(BUDGET, results)

    assert (verdict.figure, verdict.word, verdict.stretched) == (1.25, MET, False)
    assert verdict.figure_text == "1.25 x"


def test_variants_of_unlike_rounds_are_compared_by_their_medians():
    results = [line("floor", 10, 20, 30), line("h2lite", 28)]

    assert judge(BUDGET, results).figure == 1.4


@pytest.mark.parametrize(
    ("direction", "limit", "stretch", "word", "stretched"),
    [
        ("at most", 2.0, 1.0, MET, False),
        ("at most", 1.9, 1.0, SHORT, False),
        ("at most", 2.1, 2.0, MET, True),
        ("at most", 2.1, None, MET, False),
        ("at least", 2.0, 3.0, MET, False),
        ("at least", 2.1, 3.0, SHORT, False),
        ("at least", 1.0, 2.0, MET, True),
    ],
)
def test_a_limit_itself_is_met_in_either_direction(direction, limit, stretch, word, stretched):
    budget = BUDGET._replace(direction=direction, limit=limit, stretch=stretch)

    verdict = judge(budget, [line("floor", 10), line("h2lite", 20)])

    assert (verdict.word, verdict.stretched) == (word, stretched)


@pytest.mark.parametrize(
    ("took", "text"), [(13.0, "1.30 x"), (13.02, "1.302 x"), (12.99, "1.299 x"), (14, "1.40 x")]
)
def test_a_figure_is_not_rounded_to_its_limit(took, text):
    verdict = judge(BUDGET, [line("floor", 10), line("h2lite", took)])

    assert verdict.figure_text == text


def test_a_missing_line_is_not_measured():
    budget = BUDGET._replace(what=["what", "other"])
    here = [line("floor", 10), line("h2lite", 20)]

    for results in ([], here[:1], here[1:], here):
        verdict = judge(budget, results)
        assert (verdict.figure, verdict.word, verdict.figure_text) == (None, NOT_MEASURED, "")
        assert not verdict.stretched


def test_over_several_the_best_one_counts_and_an_absent_one_says_nothing():
    budget = BUDGET._replace(over=["go", "h2", "absent"], value="p99", limit=1)
    results = [line("h2lite", 30), line("go", 60), line("h2", 40)]

    assert judge(budget, results).figure == 0.75


@pytest.mark.parametrize(
    ("fold", "figure"), [("geometric mean", 4.0), ("least", 2.0), ("greatest", 8.0)]
)
def test_several_jobs_are_folded_into_one_figure(fold, figure):
    budget = BUDGET._replace(what=["a", "b"], fold=fold)
    results = [
        line("floor", 1, what="a"),
        line("h2lite", 2, what="a"),
        line("floor", 1, what="b"),
        line("h2lite", 8, what="b"),
    ]

    assert judge(budget, results).figure == pytest.approx(figure)


def test_the_greatest_round_counts():
    budget = BUDGET._replace(over=[], unit="ms", limit=20, stretch=5, value="max")

    verdict = judge(budget, [line("h2lite", 0.0, 0.004, 0.0, unit=SECONDS)])

    assert (verdict.figure, verdict.stretched) == (4, True)


def test_a_figure_is_told_in_the_budgets_unit():
    budget = BUDGET._replace(over=[], unit="us", limit=25, stretch=None)

    assert judge(budget, [line("h2lite", 26_000)]).figure == 26
    assert judge(budget, [line("h2lite", 2e-5, unit=SECONDS)]).word == MET


def test_of_several_loads_a_budget_says_which():
    budget = BUDGET._replace(over=[], unit="us", limit=25)
    results = [
        line("h2lite", 10_000)._replace(load=100.0),
        line("h2lite", 40_000)._replace(load=1000.0),
    ]

    assert judge(budget._replace(load=1000), results).figure == 40
    assert judge(budget._replace(load=1), results).figure is None
    with pytest.raises(ValueError, match="a budget: under which load"):
        judge(budget, results)


def test_what_comes_on_top_of_another_variant():
    budget = BUDGET._replace(over=[], minus="floor", unit="ms", limit=8)
    results = [line("floor", 10e6, 14e6), line("h2lite", 15e6, 21e6)]

    assert judge(budget, results).figure == 6
    assert judge(budget, results[1:]).figure is None


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("", "a: want one of at_most and at_least"),
        ("at_most = 1\nat_least = 1", "a: want one of at_most and at_least"),
        ("at_most = 1\nstrech = 2", "a: what is strech?"),
        ('at_most = 1\nfold = "sum"', "a: no fold sum"),
        ('at_most = 1\nvalue = "p98"', "a: no value p98"),
        ('at_most = 1\nunit = "miles"', "a: no unit miles"),
    ],
)
def test_a_budget_that_says_no_sense_is_refused(tmp_path, toml, complaint):
    path = tmp_path / "budgets.toml"
    path.write_text(f'[[budget]]\nname = "a"\njob = "j"\nwhat = "w"\nvariant = "v"\n{toml}\n')

    with pytest.raises(ValueError, match=re.escape(complaint)):
        check.budgets(path)


def test_the_report_is_no_test(tmp_path, capsys):
    """It ends well, whatever it finds, and wherever it finds nothing."""
    check.main([str(tmp_path)])

    *lines, sums = capsys.readouterr().out.splitlines()
    every = check.budgets()
    assert len({budget.name for budget in every}) == len(every)
    assert sum(text.startswith(NOT_MEASURED) for text in lines) == len(every)
    assert sums == f"0 met, 0 short, {len(every)} not measured"


def test_budgets_name_jobs_that_there_are():
    assert {budget.job for budget in check.budgets()} <= {*side_by_side.JOBS}


def test_budgets_name_lines_that_were_measured():
    """Of each job whose figures are kept here; a peer may have been missing."""
    for job, (around, results) in figures.read_all(check.RESULTS).items():
        lines = {(one.what, one.variant) for one in results}
        for budget in check.budgets():
            if budget.job == job and not around["absent"]:
                for variant in filter(None, (budget.variant, *budget.over, budget.minus)):
                    assert {(what, variant) for what in budget.what} <= lines, budget.name


# -- what modules say --------------------------------------------------------------------------


@pytest.mark.parametrize("job", side_by_side.JOBS)
def test_a_job_says_what_is_timed_and_what_is_left_out(job):
    text = report.docstring(report.module_path(job))

    assert "Timed:" in text
    assert report.said(text).left_out


def test_what_is_left_out_is_cut_from_the_docstring():
    said = report.said(
        "The title.\n\nTimed: one.\nMore.  Left out: two\nand three.\n\n    a table\n\nThe end.\n"
    )

    assert said == report.Said(
        "The title.", "Timed: one.\nMore.\n\n    a table\n\nThe end.", "two\nand three."
    )


def test_a_constant_is_mentioned_with_its_number(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(
        '"""A job: COUNT of SIZE, COUNT times, for SECONDS; NAME."""\n'
        'COUNT, SECONDS = 1000, 0.5\nSIZE = 256 * 2**20\nNAME = "COUNT"\n'
    )

    assert report.explained(path) == (
        "A job: COUNT (1 000) of SIZE (268 435 456), COUNT times, for SECONDS (0.5); NAME."
    )


def test_a_docstring_leads_to_the_modules_it_names():
    names = [path.name for path in report.referred("codec.py, codec.py, echo.py, no.py, units.py")]

    assert names == ["codec.py", "units.py"]  # echo.py is a program, as its docstring shows


# -- the page ----------------------------------------------------------------------------------


def test_tables_tell_what_was_measured():
    results = [
        line("floor", 8000, 8200)._replace(to_floor=1.0),
        line("h2lite", 12000, 12400)._replace(to_floor=1.508),
    ]

    assert report.percentiles(results).splitlines()[2:] == [
        "| what | floor | us | 8.00 | 8.10 | 8.18 | 8.20 | 8.20 | 1.00 |",
        "|  | **h2lite** | us | 12.0 | 12.2 | 12.4 | 12.4 | 12.4 | 1.51 |",
    ]
    assert report.medians(results, "GETs/s").splitlines()[2:] == [
        "| what | floor | 8.10 us | 123 000 | 1.00 |",
        "|  | **h2lite** | 12.2 us | 82 000 | 1.51 |",
    ]


def test_a_growing_load_has_a_column_each():
    results = [
        line("h2lite", 1000, what="of many")._replace(load=10.0),
        line("go", 3000, what="of many")._replace(load=10.0),
        line("h2lite", 2000, what="of many")._replace(load=1000.0),
    ]

    assert report.families(results) == [report.Family("", True, results)]
    assert report.by_load(results).splitlines() == [
        "| what, with | variant | 10 | 1 000 |",
        "| --- | --- | ---: | ---: |",
        "| of many | **h2lite** | 1.00 us | 2.00 us |",
        "|  | go | 3.00 us |  |",
    ]
    assert report.by_load(results, "GETs/s").splitlines()[::2] == [
        "| what, GETs/s with | variant | 10 | 1 000 |",
        "| of many | **h2lite** | 1 000 000 | 500 000 |",
    ]


@pytest.mark.parametrize(
    ("what", "load", "rest"),
    [
        ("gets 10 at once", 10, "gets at once"),
        ("gets 10 at once", 1, "gets 10 at once"),
        ("gets 10 at once", None, "gets 10 at once"),
        ("serving -c1 -m100", 100, "serving -c1 -m100"),
        ("1000 connections", 1000, "connections"),
        ("memory of 1000000", 1000000, "memory"),
    ],
)
def test_what_a_line_is_without_its_load(what, load, rest):
    assert report.without_load(line("h2lite", 1, what=what)._replace(load=load)) == rest


def test_lines_of_one_kind_stand_together():
    results = [
        line("h2lite", 1, what="ping a"),
        line("h2lite", 1, what="ping a, moved", unit="MB/s"),
        line("h2lite", 1, what="rtt a"),
        line("h2lite", 1, what="ping b"),
        line("h2lite", 1, what="found"),
        line("h2lite", 1, what="late"),
    ]

    told = [(name, [one.what for one in lines]) for name, _, lines in report.families(results)]

    assert told == [
        ("ping", ["ping a", "ping b"]),
        ("ping moved MB/s", ["ping a, moved"]),
        ("rtt", ["rtt a"]),
        ("", ["found", "late"]),
    ]


def test_one_load_alone_is_no_growth():
    results = [
        line("h2lite", 1, what="gets 1 at once")._replace(load=1.0),
        line("h2lite", 1, what="gets token")._replace(load=100.0),
        line("h2lite", 1, what="gets 10 at once")._replace(load=10.0),
    ]

    (growing, rest) = report.families(results)

    assert (growing.grows, [one.load for one in growing.lines]) == (True, [1.0, 10.0])
    assert (rest.grows, [one.what for one in rest.lines]) == (False, ["gets token"])
    assert list(report.growing(results)) == ["gets at once"]


def test_the_page_comes_from_the_figures(tmp_path):
    results = [
        line("h2lite", 500, what="parse PING"),
        line("hyperframe", 1500, what="parse PING"),
    ]
    options = Options(peers=True, rounds=3, absent={"go: not here"})
    figures.write(tmp_path / "codec.json", "codec", AROUND, options, results)

    page = report.page(tmp_path, None)

    assert page == report.page(tmp_path, None)
    for text in (
        "| versions | h2lite 0.1.0, OpenSSL 3.0.19 |",
        "| [codec](#codec) | 0123456789ab | 2026-01-02 | client and server on one core | 3 |",
        "| go: not here |",
        "| parse PING | **h2lite** | 500 ns |  |",
        "|  | hyperframe | 1.50 us |  |",
        "**Left out:** sockets",
        "**Timed:** a frame",
    ):
        assert text in page
    assert "![" not in page


def test_without_figures_the_page_says_so(tmp_path):
    assert "Nothing has been measured yet." in report.page(tmp_path, None)


def test_the_page_that_is_kept_is_the_one_these_figures_make():
    """Its pictures aside, which take the plotting set to draw."""
    path = FOLDER / report.PAGE
    if not path.exists():
        assert not figures.read_all(check.RESULTS)  # nothing to write of
        return
    kept = path.read_text(encoding="utf-8")
    pictures = re.findall(r"^!\[.*\]\((.*)\)$", kept, re.MULTILINE)

    without = re.sub(r"^!\[.*\n\n", "", kept, flags=re.MULTILINE)
    assert without == report.page(check.RESULTS, None), "run make bench-report"
    assert all((FOLDER / picture).exists() for picture in pictures)


def test_the_soak_is_told_by_its_first_and_last_tenth():
    sample = {
        "at": 10.0,
        "requests_per_s": 3000.0,
        "checks_per_s": 900.0,
        "resident_octets": 50 * 2**20,
        "silence_s": 1.1,
        "pings_sent": 20000,
        "pings_acked": 20000,
        "suspects": 0,
        "false_suspects": 0,
        "deaths": 0,
    }
    last = {**sample, "at": 20.0, "requests_per_s": 2900.0}
    around = {"connections": 1000, "seconds": 3600, "faults": [], "samples": [sample, last]}

    text = report.soak_text(around)

    assert text.startswith("1000 connections for 60.0 minutes: 20 000 pings sent, ")
    assert "What did not hold: nothing." in text
    assert "| requests a second | 3 000 | 2 900 | 2 900 | 3 000 |" in text
    assert "| memory, MiB resident | 50.0 | 50.0 | 50.0 | 50.0 |" in text


# -- the run ------------------------------------------------------------------------------------


def test_a_job_that_fails_keeps_no_other_from_running(monkeypatch, capsys):
    ran = []

    def run_job(job: str, options: Options, folder: object) -> None:
        ran.append(job)
        options.absent.add(f"{job}'s peer: not here")
        if job == "codec":
            raise AssertionError("h2lite gave None")

    monkeypatch.setattr(side_by_side, "run_job", run_job)
    monkeypatch.setattr(figures, "circumstances", lambda pinning: AROUND)

    assert side_by_side.main(["codec", "ping"]) == 1
    said = capsys.readouterr()
    assert ran == ["codec", "ping"]
    assert "without codec's peer: not here\nwithout ping's peer: not here\n" in said.out
    assert "h2lite gave None" in said.err
    assert said.err.endswith("failed: codec\n")
    assert side_by_side.main(["ping"]) == 0


def test_the_table_of_a_run_tells_what_is_compared_in_one_unit():
    results = [
        line("floor", 800.0, 900.0)._replace(to_floor=1.0, load=10.0),
        line("h2lite", 12000.0, 12400.0)._replace(to_floor=14.37, load=10.0),
    ]

    said = [text.split() for text in side_by_side.table(results).splitlines()]

    assert said[1:3] == [
        ["what", "x", "10:", "floor", "ns", "800", "850", "890", "899", "900", "1.00"],
        ["what", "x", "10:", "h2lite", "ns", "12", "000", "12", "200", "12", "400", "12", "400",
         "12", "400", "14.37"],
    ]  # fmt: skip


# -- figures kept ------------------------------------------------------------------------------


def test_figures_come_back_as_they_were_kept(tmp_path):
    results = [line("h2lite", 1.25, 2.5), line("go", 1 / 3)._replace(load=10)]
    options = Options(peers=False, rounds=7, absent=set())

    figures.write(tmp_path / "job.json", "job", AROUND, options, results)
    around, kept = figures.read(tmp_path / "job.json")

    assert around == {"job": "job", **AROUND, "asked_rounds": 7, "absent": []}
    assert kept == [results[0], line("go", 0.333333)._replace(load=10)]


# -- colours -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "whose"),
    [
        ("h2lite", OURS),
        ("core+loop", OURS),
        ("ping(), thread", OURS),
        ("floor", "floor"),
        ("h2, asyncio", "h2"),
        ("hyperframe", "h2"),
        ("go", "go"),
        ("nghttpd", "nghttp2"),
    ],
)
def test_a_variant_belongs_to_somebody(variant, whose):
    assert family(variant) == whose
    assert ours(variant) == (whose == OURS)


def test_each_implementation_has_its_colour_and_its_variants_have_shades_of_it():
    given = colours(["floor", "core+loop", "ping()", "h2", "h2, asyncio", "core+loop"])

    assert (given["floor"], given["core+loop"]) == (COLOURS["floor"], COLOURS[OURS])
    assert given["h2"] == COLOURS["h2"]
    assert len(set(given.values())) == len(given) == 5
