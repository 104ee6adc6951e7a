-- The month in one row: trips, distance, time, money, and how many rows are odd.
--
-- datasets: yellow, green, fhv, fhvhv
-- columns:
--   trips: Plausible trips, without reversals.
--   reversals: Rows with a negative total, which take back another row.
--   passengers: Passengers of the trips; null for fhv and fhvhv.
--   trip_miles: Miles of the trips.
--   minutes: Mean duration. Unit: minutes.
--   median_miles: Median distance. Unit: miles.
--   median_minutes: Median duration. Unit: minutes.
--   fare_amount: Fares, for fhvhv base fares, less those of reversals; null for fhv. Unit: USD.
--   tip_amount: Tips, less those of reversals; null for fhv. Unit: USD.
--   tip_share: Tips divided by fares.
--   congestion_fees: Congestion surcharge and fee together; null for fhv. Unit: USD.
--   total_amount: What passengers paid, less reversals; null for fhv. Unit: USD.
--   negative_minutes: Rows whose drop-off is before the pickup.
--   strays: Rows whose pickup is in another month.
--   unknown_zones: Zone ids that are not in the list of zones; a row can have two.
--   unknown_codes: Codes that are not listed; a row can have three.
--
-- Of all rows of the file:
-- * strays: the pickup is in another month. negative_minutes: the drop-off is before the pickup.
-- * unknown_zones: zone ids outside 1 to 265; a row can have two.
-- * unknown_codes: codes of vendor, rate and payment (fhvhv: of the service) that are not listed; a row can have three.
-- What is plausible in the other columns:
-- * Only trips whose pickup is in the month.
-- * For fhvhv, fare_amount is the base fare, tip_amount the tips, and the total what the passenger paid: fare, tolls,
--   taxes, surcharges, fees and tips. Money is null for fhv; passengers are null for fhv and fhvhv.
-- * A negative total is the reversal of a trip in another row. It counts as a reversal, not as a trip, and its money
--   is added, so that both rows cancel out.
-- * A total beyond 10,000 dollars is a mistyped fare: the trip is left out. A trip without a total counts, without money.
-- * A distance below 0 or above 200 miles is an error of the meter: the trip counts, its miles do not.
-- * A duration below 0 or above 12 hours is an error of the clock: the trip counts, its time does not.
-- * An amount or a number of passengers beyond 1e9 is invalid: the trip counts, the number does not.
-- tip_share is tip_amount by fare_amount; cash tips of yellow and green are not recorded. congestion_fees are
-- congestion_surcharge and cbd_congestion_fee together.
-- All is computed from whole cents, seconds and thousandths of a mile, and means, medians and shares are rounded half
-- up: the same on every engine in any order of the rows. DOUBLE PRECISION adds up whole numbers exactly as far as
-- 2 ** 53. A median is the mean of the two middle values.
WITH measured AS NOT MATERIALIZED (
    SELECT
        *,
        CASE WHEN plausible AND COALESCE(total, 0) >= 0 THEN 1 END AS trip,
        CASE
            WHEN plausible AND COALESCE(total, 0) >= 0
                AND dropoff_datetime BETWEEN pickup_datetime AND pickup_datetime + INTERVAL '12' HOUR
                THEN CAST(
                    CAST(FLOOR(EXTRACT(EPOCH FROM (dropoff_datetime - pickup_datetime))) AS BIGINT) AS DOUBLE PRECISION
                )
        END AS seconds,
        CASE
            WHEN plausible AND COALESCE(total, 0) >= 0 AND miles BETWEEN 0 AND 200
                THEN FLOOR(miles * 1000 + 0.5)
        END AS thousandths
    FROM (
        SELECT
            *,
            pickup_datetime >= CAST(:month AS TIMESTAMP)
            AND pickup_datetime < CAST(:next_month AS TIMESTAMP)
            AND COALESCE(total, 0) BETWEEN -10000 AND 10000 AS plausible
        FROM (
            SELECT
                pickup_datetime,
                dropoff_datetime,
                pickup_location_id,
                dropoff_location_id,
                CASE WHEN vendor_id IS NOT NULL AND vendor IS NULL THEN 1 ELSE 0 END
                + CASE WHEN rate_code_id IS NOT NULL AND rate IS NULL THEN 1 ELSE 0 END
                + CASE WHEN payment_type IS NOT NULL AND payment IS NULL THEN 1 ELSE 0 END AS unknown_codes,
                passenger_count AS passengers,
                trip_distance AS miles,
                fare_amount AS fare,
                tip_amount AS tip,
                congestion_surcharge,
                cbd_congestion_fee,
                total_amount AS total
            FROM trips
            WHERE dataset = :dataset AND month = :month
            UNION ALL
            SELECT
                pickup_datetime,
                dropoff_datetime,
                pickup_location_id,
                dropoff_location_id,
                CASE WHEN hvfhs_license_num IS NOT NULL AND service IS NULL THEN 1 ELSE 0 END AS unknown_codes,
                CAST(NULL AS BIGINT) AS passengers,
                trip_miles AS miles,
                base_passenger_fare AS fare,
                tips AS tip,
                congestion_surcharge,
                cbd_congestion_fee,
                base_passenger_fare + COALESCE(tolls, 0) + COALESCE(bcf, 0) + COALESCE(sales_tax, 0)
                + COALESCE(congestion_surcharge, 0) + COALESCE(airport_fee, 0) + COALESCE(cbd_congestion_fee, 0)
                + COALESCE(tips, 0) AS total
            FROM for_hire_trips
            WHERE dataset = :dataset AND month = :month
        ) AS of_dataset
    ) AS judged
),

totals AS (
    SELECT
        COUNT(trip) AS trips,
        COUNT(CASE WHEN plausible AND total < 0 THEN 1 END) AS reversals,
        CAST(SUM(CASE WHEN trip = 1 AND passengers BETWEEN -1e9 AND 1e9 THEN passengers END) AS BIGINT) AS passengers,
        SUM(thousandths) AS thousandths,
        SUM(seconds) AS seconds,
        COUNT(seconds) AS timed,
        SUM(CASE WHEN plausible AND fare BETWEEN -1e9 AND 1e9 THEN CAST(FLOOR(fare * 100 + 0.5) AS BIGINT) END) AS fare,
        SUM(CASE WHEN plausible AND tip BETWEEN -1e9 AND 1e9 THEN CAST(FLOOR(tip * 100 + 0.5) AS BIGINT) END) AS tip,
        SUM(
            CASE
                WHEN plausible AND congestion_surcharge BETWEEN -1e9 AND 1e9
                    THEN CAST(FLOOR(congestion_surcharge * 100 + 0.5) AS BIGINT)
            END
        ) AS congestion_surcharge,
        SUM(
            CASE
                WHEN plausible AND cbd_congestion_fee BETWEEN -1e9 AND 1e9
                    THEN CAST(FLOOR(cbd_congestion_fee * 100 + 0.5) AS BIGINT)
            END
        ) AS cbd_congestion_fee,
        SUM(CASE WHEN plausible THEN FLOOR(total * 100 + 0.5) END) AS total,
        COUNT(CASE WHEN dropoff_datetime < pickup_datetime THEN 1 END) AS negative_minutes,
        COUNT(
            CASE
                WHEN pickup_datetime < CAST(:month AS TIMESTAMP) OR pickup_datetime >= CAST(:next_month AS TIMESTAMP)
                    THEN 1
            END
        ) AS strays,
        COUNT(CASE WHEN NOT pickup_location_id BETWEEN 1 AND 265 THEN 1 END)
        + COUNT(CASE WHEN NOT dropoff_location_id BETWEEN 1 AND 265 THEN 1 END) AS unknown_zones,
        CAST(SUM(unknown_codes) AS BIGINT) AS unknown_codes
    FROM measured
),

medians AS (
    SELECT
        MAX(CASE WHEN measure = 'miles' THEN two_middle END) AS two_thousandths,
        MAX(CASE WHEN measure = 'minutes' THEN two_middle END) AS two_seconds
    FROM (
        SELECT
            measure,
            MIN(CASE WHEN 2 * up_to >= counted THEN amount END)
            + MIN(CASE WHEN 2 * up_to > counted THEN amount END) AS two_middle
        FROM (
            SELECT
                measure,
                amount,
                SUM(n) OVER (PARTITION BY measure ORDER BY amount NULLS FIRST) AS up_to,
                SUM(n) OVER (PARTITION BY measure) AS counted
            FROM (
                SELECT 'miles' AS measure, thousandths AS amount, COUNT(thousandths) AS n
                FROM measured
                GROUP BY thousandths
                UNION ALL
                SELECT 'minutes' AS measure, seconds AS amount, COUNT(seconds) AS n
                FROM measured
                GROUP BY seconds
            ) AS amounts
        ) AS ranked
        GROUP BY measure
    ) AS by_measure
)

SELECT
    trips,
    reversals,
    passengers,
    CAST(thousandths / 1000 AS DECIMAL(18, 3)) AS trip_miles,
    CAST(FLOOR(100 * seconds / NULLIF(60 * timed, 0) + 0.5) / 100 AS DECIMAL(18, 2)) AS minutes,
    CAST(FLOOR(two_thousandths / 20 + 0.5) / 100 AS DECIMAL(18, 2)) AS median_miles,
    CAST(FLOOR(100 * two_seconds / 120 + 0.5) / 100 AS DECIMAL(18, 2)) AS median_minutes,
    CAST(fare AS DECIMAL(20, 0)) * CAST(0.01 AS DECIMAL(3, 2)) AS fare_amount,
    CAST(tip AS DECIMAL(20, 0)) * CAST(0.01 AS DECIMAL(3, 2)) AS tip_amount,
    CASE
        WHEN fare > 0
            THEN CAST(FLOOR(1000 * CAST(tip AS DOUBLE PRECISION) / fare + 0.5) / 1000 AS DECIMAL(18, 3))
    END AS tip_share,
    CAST(
        COALESCE(congestion_surcharge + cbd_congestion_fee, congestion_surcharge, cbd_congestion_fee)
        AS DECIMAL(20, 0)
    ) * CAST(0.01 AS DECIMAL(3, 2)) AS congestion_fees,
    CAST(total / 100 AS DECIMAL(18, 2)) AS total_amount,
    negative_minutes,
    strays,
    unknown_zones,
    unknown_codes
FROM totals
CROSS JOIN medians
