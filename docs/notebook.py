# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""From `pipeline.read` to three pictures: a notebook for marimo. docs/how-to/notebook.md says how to open it."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Trips in three pictures")

with app.setup:
    import sys
    from functools import reduce
    from pathlib import Path

    import altair as alt
    import marimo as mo
    import pandas as pd

    import pipeline
    from pipeline.errors import PipelineError

    COLOURS = {"yellow": "#c99700", "green": "#2f9e5b", "fhv": "#8a7fd1", "fhvhv": "#3b8fd4"}
    WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

    def stop_if(problem: object, text: str) -> None:
        """End here with a message: on the page, or, as a script, on standard error with exit code 1."""
        if problem and mo.app_meta().mode == "script":
            sys.exit(text)
        mo.stop(problem, mo.callout(mo.md(text), kind="warn"))

    def show_in_script(table: pd.DataFrame) -> None:
        if mo.app_meta().mode == "script":
            print(table.to_string(index=False, float_format="{:,.3f}".format), end="\n\n")

    def axis(title: str | None = None, **options: object) -> alt.Axis:
        return alt.Axis(title=title, **options)


@app.cell
def _():
    mo.md("""
    # Trips in three pictures

    The trips come from the Parquet files of a lake, through `pipeline.read`. No warehouse is opened. DuckDB reads
    only the columns that a picture needs, and counts while it reads, so whole years fit in memory.

    To change a picture, choose other months or datasets below, or edit its cell.
    """)
    return


@app.cell
def _():
    arguments = mo.cli_args()
    lake = mo.ui.text(value=str(arguments.get("lake") or "data/sample/lake"), label="Lake (a folder)", full_width=True)
    lake  # noqa: B018 - the last expression of a cell is what it shows.
    return arguments, lake


@app.cell
def _(arguments, lake):
    # The lake has a folder for each month of a dataset: trips/green/month=2024-01-01.
    months = {
        name: sorted(
            folder.name.removeprefix("month=")[:7]
            for folder in Path(lake.value, "trips", name).expanduser().glob("month=*")
        )
        for name in COLOURS
    }
    months = {name: listed for name, listed in months.items() if listed}
    stop_if(
        not months,
        f"There are no trips in the folder `{lake.value}`. For the sample, run `pipeline demo`, then run this notebook "
        "again. For another lake, give its folder: above, or on the command line with `-- --lake data/lake`.",
    )
    every_month = sorted({month for listed in months.values() for month in listed})
    asked = str(arguments.get("datasets") or ",".join(months)).split(",")
    given = {name: str(arguments.get(name) or "") for name in ("first", "last")}
    stop_if(
        not {*asked} <= {*months} or not {*given.values()} <= {"", *every_month},
        f"The lake has {', '.join(months)}, with months from {every_month[0]} to {every_month[-1]}; "
        f"`--datasets`, `--first` and `--last` must be among these.",
    )
    datasets = mo.ui.multiselect(list(months), value=asked, label="Datasets")
    # Twelve months at first: some lakes have thousands of millions of trips.
    first = mo.ui.dropdown(every_month, value=given["first"] or every_month[-12:][0], label="From")
    last = mo.ui.dropdown(every_month, value=given["last"] or every_month[-1], label="to")
    mo.hstack([datasets, first, last], justify="start")
    return datasets, first, last, months


@app.cell
def _(datasets, first, last, lake, months):
    chosen = {
        name: listed
        for name in datasets.value
        if (listed := [month for month in months[name] if first.value <= month <= last.value])
    }
    stop_if(
        not chosen,
        f"Nothing is chosen: no dataset, or none that has months from {first.value} to {last.value}.",
    )

    def read(names, columns):
        """The trips of these datasets as a DuckDB relation; nothing is read before a query runs."""
        try:
            parts = [pipeline.read([name], chosen[name], columns, lake=lake.value, as_="duckdb") for name in names]
        except PipelineError as error:
            stop_if(True, str(error))
        return reduce(lambda one, other: one.union(other), parts)

    files = pd.DataFrame(
        [(name, pd.Timestamp(month)) for name, listed in chosen.items() for month in listed],
        columns=["dataset", "month"],
    )

    def in_their_month(rows):
        """The rows whose month of pickup is among the months that were read of the dataset."""
        return rows.merge(files.astype({"month": rows["month"].dtype}), on=["dataset", "month"])

    def colour(names):
        return alt.Color(
            "dataset:N",
            scale=alt.Scale(domain=list(names), range=[COLOURS[name] for name in names]),
            legend=alt.Legend(title=None, orient="top"),
        )

    mo.md(
        "Read: "
        + "; ".join(
            f"**{name}**, {len(listed)} month(s), {listed[0]} to {listed[-1]}" for name, listed in chosen.items()
        )
    )
    return chosen, colour, in_their_month, read


@app.cell
def _(chosen, in_their_month, read):
    counted = (
        read(chosen, ["pickup_datetime"])
        .query(
            "trips",
            """
        SELECT
            dataset,
            date_trunc('month', pickup_datetime) AS month,
            date_trunc('hour', pickup_datetime) AS hour,
            count(*) AS trips
        FROM trips
        GROUP BY ALL
        ORDER BY ALL
        """,
        )
        .df()
    )
    hourly = in_their_month(counted)
    stray = int(counted["trips"].sum() - hourly["trips"].sum())
    mo.md(f"""
    ## Odd rows

    A file has a few pickups of other months, even of other decades. The pictures leave out a pickup whose month was
    not read: here **{stray:,}** of {counted["trips"].sum():,}. A row with a negative total, which takes back another
    row, is counted as a trip in the first two pictures.
    """)
    return hourly, stray


@app.cell
def _(chosen, colour, hourly):
    daily = hourly.assign(day=hourly["hour"].dt.normalize()).groupby(["dataset", "day"], as_index=False)["trips"].sum()
    # A line ends where the months that were read have a gap.
    daily["run"] = (daily.groupby("dataset")["day"].diff() > pd.Timedelta(days=1)).cumsum()
    daily_chart = (
        alt.Chart(daily)
        .mark_line(point=alt.OverlayMarkDef(size=14), strokeWidth=1.5)
        .encode(
            x=alt.X("day:T", axis=axis()),
            y=alt.Y("trips:Q", axis=axis("trips a day", format="~s", tickCount=4)),
            color=colour(chosen).legend(None),
            detail="run:N",
            tooltip=["dataset:N", alt.Tooltip("day:T", format="%a %Y-%m-%d"), alt.Tooltip("trips:Q", format=",")],
        )
        .properties(width=600, height=150)
        .facet(row=alt.Row("dataset:N", title=None, sort=list(chosen)))
        .resolve_scale(y="independent")
    )
    show_in_script(daily.groupby("dataset", as_index=False).agg(days=("day", "count"), trips_a_day=("trips", "mean")))
    mo.vstack([mo.md("## 1. Trips a day"), daily_chart])
    return daily, daily_chart


@app.cell
def _(chosen, daily, hourly):
    # Trips of an hour of the week, as an average over the days that were read.
    days = daily.groupby(["dataset", daily["day"].dt.day_of_week.rename("weekday")]).size().rename("days").reset_index()
    weekly = (
        hourly.groupby(
            ["dataset", hourly["hour"].dt.day_of_week.rename("weekday"), hourly["hour"].dt.hour.rename("hour_of_day")]
        )["trips"]
        .sum()
        .reset_index()
        .merge(days, on=["dataset", "weekday"])
    )
    weekly["average"] = weekly["trips"] / weekly["days"]
    weekly["of_busiest"] = weekly["average"] / weekly.groupby("dataset")["average"].transform("max")
    weekly["day_name"] = weekly["weekday"].map(dict(enumerate(WEEKDAYS)))
    weekly_chart = (
        alt.Chart(weekly)
        .mark_rect()
        .encode(
            x=alt.X(
                "hour_of_day:O", axis=axis("hour of the pickup", labelAngle=0, values=[0, 3, 6, 9, 12, 15, 18, 21])
            ),
            y=alt.Y("day_name:O", sort=WEEKDAYS, axis=axis()),
            color=alt.Color(
                "of_busiest:Q",
                scale=alt.Scale(scheme="viridis", domain=[0, 1]),
                legend=alt.Legend(title="of the busiest hour", format="%", orient="top"),
            ),
            tooltip=[
                "dataset:N",
                "day_name:O",
                "hour_of_day:O",
                alt.Tooltip("average:Q", title="trips", format=",.1f"),
            ],
        )
        .properties(width=600, height=150)
        .facet(row=alt.Row("dataset:N", title=None, sort=list(chosen)))
    )
    busiest = weekly[weekly["of_busiest"] == 1]
    show_in_script(busiest[["dataset", "day_name", "hour_of_day", "average"]])
    mo.vstack(
        [
            mo.md("""
            ## 2. The hours of the week

            The trips of an average hour, as a share of the busiest hour of the same dataset. Times are New York's.
            """),
            weekly_chart,
        ]
    )
    return weekly, weekly_chart


@app.cell
def _(chosen, colour, in_their_month, lake, read):
    with_tips = [name for name in chosen if name in ("yellow", "green")]
    stop_if(
        not with_tips, "The third picture is about tips by card, which only yellow and green have: choose one of them."
    )
    wanted = ["pickup_datetime", "pickup_location_id", "payment_type", "fare_amount", "tip_amount"]
    by_card = in_their_month(
        read(with_tips, wanted)
        .query(
            "trips",
            """
            SELECT
                dataset,
                date_trunc('month', pickup_datetime) AS month,
                pickup_location_id AS location_id,
                count(*) AS trips,
                sum(fare_amount) AS fares,
                sum(tip_amount) AS tips
            FROM trips
            -- 1 is a credit card. Tips in cash are not recorded.
            WHERE payment_type = 1 AND fare_amount > 0 AND fare_amount <= 1000 AND tip_amount BETWEEN 0 AND 1000
            GROUP BY ALL
            ORDER BY ALL
            """,
        )
        .df()
    )
    try:
        zones = pipeline.read("zones", columns=["location_id", "borough"], lake=lake.value)
    except PipelineError as error:
        stop_if(True, str(error))
    zones = zones.astype({"location_id": by_card["location_id"].dtype})
    tips = by_card.merge(zones, on="location_id", how="left").fillna({"borough": "no zone"})
    tips = tips.groupby(["dataset", "borough"], as_index=False)[["trips", "fares", "tips"]].sum()
    tips = tips[tips["trips"] >= 30].assign(share=lambda rows: rows["tips"] / rows["fares"])
    tips_chart = (
        alt.Chart(tips)
        .mark_bar()
        .encode(
            x=alt.X("share:Q", axis=axis("tip as a share of the fare", format="%", tickCount=6)),
            y=alt.Y("borough:N", sort=alt.EncodingSortField("trips", op="sum", order="descending"), axis=axis()),
            yOffset=alt.YOffset("dataset:N", sort=with_tips),
            color=colour(with_tips),
            tooltip=[
                *("dataset:N", "borough:N", alt.Tooltip("share:Q", format=".1%")),
                alt.Tooltip("trips:Q", title="trips by card", format=","),
            ],
        )
        .properties(width="container", height=alt.Step(16))
    )
    show_in_script(tips[["dataset", "borough", "trips", "share"]])
    mo.vstack(
        [
            mo.md("""
            ## 3. Tips by borough

            The sum of the tips divided by the sum of the fares, by the borough of the pickup; boroughs with most trips
            first. Only trips that were paid by card, because tips in cash are not recorded. Left out are fares of 0 or
            less or above 1,000 dollars, tips below 0 or above 1,000 dollars, and boroughs with fewer than 30 trips.
            Zone 264 is "Unknown", and zone 265, outside of New York City, has the borough "N/A".
            """),
            tips_chart,
        ]
    )
    return tips, tips_chart


if __name__ == "__main__":
    app.run()
