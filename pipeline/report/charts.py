"""Charts as SVG, drawn by Vega-Lite; https://altair-viz.github.io describes its interface.

Colours are the variables of the page's style sheet, so that one drawing suits a light page, a dark one, and paper. A
drawing has no style, no script and no identifier: pages allow no others, and several stand on one page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.months import add_months, month_range

if TYPE_CHECKING:
    import altair

    Chart = altair.Chart | altair.LayerChart | altair.FacetChart

Row = Mapping[str, Any]

_INSTALL = "pictures need a library for charts; install it: pip install 'taxi-pipeline[report]'"
#: In pixels before the page scales a drawing; so narrow that its text is legible on a phone.
_WIDTH, _PLOT = 400, 326
#: The room of labels left of a plot: the font of the page may be wider than the one that Vega measures with.
_EXTENT, _MOST_NAME = 46, 185
#: Of categories without a colour of their own.
COLOURS = tuple(f"var(--series-{number})" for number in range(1, 9))
#: Labels such as 1.2M, and 3B in place of the 3G of physicists.
_SHORT = "replace(format(datum.value, '~s'), 'G', 'B')"
_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "aria": False,
    "padding": {"left": 0, "right": 24, "top": 2, "bottom": 0},
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": "var(--soft)", "labelFontSize": 12, "labelPadding": 5},
        **{"domain": False, "ticks": False, "labelFlush": False, "gridColor": "var(--line)", "title": None},
    },
    "legend": {
        **{"orient": "top", "title": None, "labelColor": "var(--text)", "labelFontSize": 12},
        **{"offset": 8, "symbolStrokeWidth": 0, "symbolSize": 90, "columnPadding": 14},
    },
    "header": {
        **{"title": None, "labelColor": "var(--text)", "labelFontSize": 12, "labelFontWeight": 600},
        **{"labelAnchor": "start", "labelOrient": "top", "labelPadding": 4},
    },
}


def library() -> tuple[Any, Any]:
    """Altair, and the module that draws; imported only when they are needed, as both are slow to import.

    Raises:
        UsageError: they are not installed.
    """
    try:
        import altair
        import vl_convert
    except ImportError as error:
        raise UsageError(f"{_INSTALL} ({error})") from error
    return altair, vl_convert


def svg(chart: Chart) -> str:
    """The chart as an SVG element."""
    drawing: str = library()[1].vegalite_to_svg(chart.to_dict(), config=_CONFIG, allowed_base_urls=[])
    # The page gives it one name, instead of a name for each mark.
    return drawing.replace("<svg ", '<svg aria-hidden="true" ', 1)


def lines(rows: Sequence[Row], colours: Mapping[str, str], *, height: int = 210, label: str = _SHORT) -> str:
    """A line for each `series` over the `month`s: where a month is missing it is interrupted.

    With a `panel` in the rows there is a drawing below the other for each panel.
    """
    alt, _ = library()
    months = [row["month"] for row in rows]
    first, last = min(months), max(months)
    values = _with_gaps(rows, month_range(first, last))
    base = alt.Chart().encode(
        x=_time(first, last),
        y=alt.Y(
            "value:Q",
            axis=alt.Axis(labelExpr=label, tickCount=4 if height > 100 else 2, minExtent=_EXTENT),
            scale=alt.Scale(zero=True, nice=True),
        ),
        color=_colour(colours),
    )
    layers = (
        base.mark_line(strokeWidth=1.75, strokeJoin="round"),
        base.transform_filter("datum.alone").mark_point(filled=True, size=36, opacity=1),
    )
    panels = list(dict.fromkeys(row["panel"] for row in rows if "panel" in row))
    if not panels:
        return svg(alt.layer(*layers, data=alt.Data(values=values)).properties(**_size(height)))
    layered = alt.layer(*layers).properties(width=_PLOT, height=height)
    return svg(_in_panels(layered, values, panels).resolve_scale(y="independent"))


def shares(rows: Sequence[Row], names: Sequence[str], *, height: int = 120) -> str:
    """Of each `month`, a column that is divided by the shares of the `series`, in this order; in `panel`s."""
    alt, _ = library()
    months = [row["month"] for row in rows]
    values, ends = [], dict[tuple[str, date], float]()
    for row in sorted(rows, key=lambda row: names.index(row["series"])):
        start = ends.get(key := (row["panel"], row["month"]), 0)
        ends[key] = start + row["value"]
        month = {"month": _ms(row["month"]), "next": _ms(add_months(row["month"], 1))}
        values.append({**month, "panel": row["panel"], "series": row["series"], "from": start, "to": ends[key]})
    chart = (
        alt.Chart()
        .mark_rect()
        .encode(
            x=_time(min(months), max(months), is_whole=True),
            x2="next",
            y=alt.Y(
                "from:Q",
                axis=alt.Axis(format="%", values=[0, 0.5, 1], minExtent=_EXTENT),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y2="to",
            color=_colour(dict(zip(names, COLOURS, strict=False))),
        )
        .properties(width=_PLOT, height=height)
    )
    return svg(_in_panels(chart, values, list(dict.fromkeys(row["panel"] for row in rows))))


def bars(rows: Sequence[Row], colours: Mapping[str, str]) -> str:
    """A horizontal bar for each `name`, in the order of the rows, divided by the `series`."""
    alt, _ = library()
    names = list(dict.fromkeys(row["name"] for row in rows))
    extent = min(_MOST_NAME, 8 * max(map(len, names)))
    axis = alt.Axis(labelColor="var(--text)", labelLimit=_MOST_NAME, minExtent=extent, grid=False)
    chart = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar(size=13)
        .encode(
            x=alt.X("value:Q", axis=alt.Axis(labelExpr=_SHORT, tickCount=4)),
            y=alt.Y("name:N", sort=names, axis=axis),
            color=_colour(colours),
            order="order:Q",
        )
    )
    return svg(chart.properties(**_size(22 * len(names) + 55)))


def heat(rows: Sequence[Row], days: Sequence[str]) -> str:
    """Squares of a `day` and an `hour`, the stronger the higher their `value` from 0 to 1; in `panel`s."""
    alt, _ = library()
    hours = alt.Axis(values=[0, 6, 12, 18], labelExpr="datum.value + ':00'", labelAngle=0, labelAlign="left")
    chart = (
        alt.Chart()
        .mark_rect(color="var(--accent)", stroke="var(--page)", strokeWidth=1)
        .encode(
            x=alt.X("hour:O", axis=hours, scale=alt.Scale(domain=list(range(24)))),
            y=alt.Y("day:N", sort=list(days), scale=alt.Scale(domain=list(days))),
            opacity=alt.Opacity("value:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 1]), legend=None),
        )
        .properties(width=_PLOT, height=98)
    )
    return svg(_in_panels(chart, rows, list(dict.fromkeys(row["panel"] for row in rows))))


def _size(height: int) -> dict[str, Any]:
    return {"width": _WIDTH, "height": height, "autosize": {"type": "fit", "contains": "padding"}}


def _in_panels(chart: Any, rows: Sequence[Row], panels: Sequence[str]) -> Any:
    alt, _ = library()
    row = alt.Row("panel:N", sort=list(panels), title=None)
    return chart.facet(row=row, data=alt.Data(values=list(rows)), spacing=16).resolve_axis(x="shared")


def _colour(colours: Mapping[str, str]) -> Any:
    alt, _ = library()
    legend = alt.Legend(symbolType="square", columns=4 if len(colours) > 4 else len(colours))
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("series:N", scale=scale, legend=legend)


def _time(first: date, last: date, *, is_whole: bool = False) -> Any:
    """The axis of months: its labels are years, or months where there are few; `is_whole` shows all of the last one."""
    alt, _ = library()
    months = month_range(first, last)
    if len(months) <= 24:
        step, form = -(-len(months) // 6), "%Y-%m"
        labelled = months[::step]
    else:
        january = [month for month in months if month.month == 1]
        step, form = -(-len(january) // 9), "%Y"
        labelled = [month for month in january if month.year % step == 0]
    values = [_ms(month) for month in labelled]
    axis = alt.Axis(values=values, labelExpr=f"utcFormat(datum.value, '{form}')", grid=False, labelPadding=8)
    is_alone = first == last and not is_whole  # In the middle, since an axis needs two ends.
    ends = [
        _ms(add_months(first, -1) if is_alone else first),
        _ms(add_months(last, 1) if is_whole or is_alone else last),
    ]
    scale = alt.Scale(type="utc", domain=ends, nice=False, padding=0 if is_whole else 6)
    return alt.X("month:T", axis=axis, scale=scale, title=None)


def _with_gaps(rows: Sequence[Row], months: Sequence[date]) -> list[dict[str, Any]]:
    """The rows for Vega-Lite, with those of missing months; `alone` are those that no line reaches."""
    found: dict[tuple[Any, Any], dict[date, Row]] = {}
    for row in rows:
        found.setdefault((row.get("panel"), row["series"]), {})[row["month"]] = row
    values = []
    for (panel, series), of_series in found.items():
        for month in months:
            around = (add_months(month, -1), add_months(month, 1))
            is_alone = len(months) <= 24 or not any(each in of_series for each in around)
            value = of_series[month]["value"] if month in of_series else None
            row = {"panel": panel, "series": series, "month": _ms(month), "value": value}
            values.append({**row, "alone": value is not None and is_alone})
    return values


def _ms(month: date) -> int:
    """The month as Vega counts time."""
    return int(datetime(month.year, month.month, 1, tzinfo=timezone.utc).timestamp() * 1000)
