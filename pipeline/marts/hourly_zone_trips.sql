-- Trips per taxi zone, weekday and hour of the pickup: how many, how long, how far, how fast, what was paid.
--
-- datasets: yellow, green, fhv, fhvhv
-- columns:
--   pickup_location_id: Taxi zone of the pickup.
--   pickup_borough: Borough of the pickup.
--   pickup_zone: Name of the pickup's zone.
--   weekday: Day of the week of the pickup, from 1 (Monday) to 7.
--   hour: Hour of the pickup, from 0 to 23.
--   trips: Plausible trips, without reversals.
--   minutes: Mean duration. Unit: minutes.
--   miles: Mean distance. Unit: miles.
--   mph: Mean speed: all miles by all hours. Unit: miles per hour.
--   total_amount: What passengers paid, less reversals; null for fhv. Unit: USD.
--
-- Weekdays are 1 (Monday) to 7, hours 0 to 23. What is plausible here:
-- * Only trips whose pickup is in the month: a file has a few pickups of other months and even other decades.
-- * A trip without a zone counts, under a zone that is null.
-- * The total of fhvhv is what the passenger paid: fare, tolls, taxes, surcharges, fees and tips. It is null for fhv.
-- * A negative total is the reversal of a trip in another row. It does not count as a trip, and its money is added, so
--   that both rows cancel out.
-- * A total beyond 10,000 dollars is a mistyped fare: the trip is left out. A trip without a total counts, without money.
-- * A distance below 0 or above 200 miles is an error of the meter: the trip counts, its miles do not.
-- * A duration below 0 or above 12 hours is an error of the clock: the trip counts, its time does not.
-- The speed is the miles of all trips by their hours; it is of trips that have both, and a time above 0.
-- All is computed from whole cents, seconds and thousandths of a mile, and means are rounded half up to hundredths: the
-- same on every engine in any order of the rows. DOUBLE PRECISION adds up whole numbers exactly as far as 2 ** 53.
SELECT
    hours.pickup_location_id,
    zones.borough AS pickup_borough,
    zones.zone AS pickup_zone,
    hours.weekday,
    hours.hour,
    hours.trips,
    CAST(FLOOR(100 * seconds / NULLIF(60 * timed, 0) + 0.5) / 100 AS DECIMAL(18, 2)) AS minutes,
    CAST(FLOOR(thousandths / NULLIF(10 * measured, 0) + 0.5) / 100 AS DECIMAL(18, 2)) AS miles,
    CAST(FLOOR(360 * moved_thousandths / moved_seconds + 0.5) / 100 AS DECIMAL(18, 2)) AS mph,
    CAST(cents / 100 AS DECIMAL(18, 2)) AS total_amount
FROM (
    SELECT
        pickup_location_id,
        weekday,
        hour,
        COUNT(trip) AS trips,
        SUM(seconds) AS seconds,
        COUNT(seconds) AS timed,
        SUM(thousandths) AS thousandths,
        COUNT(thousandths) AS measured,
        SUM(CASE WHEN seconds > 0 THEN thousandths END) AS moved_thousandths,
        SUM(CASE WHEN seconds > 0 AND thousandths >= 0 THEN seconds END) AS moved_seconds,
        SUM(cents) AS cents
    FROM (
        SELECT
            pickup_location_id,
            CAST(EXTRACT(ISODOW FROM pickup_datetime) AS BIGINT) AS weekday,
            CAST(EXTRACT(HOUR FROM pickup_datetime) AS BIGINT) AS hour,
            CASE WHEN COALESCE(total, 0) >= 0 THEN 1 END AS trip,
            CASE
                WHEN COALESCE(total, 0) >= 0
                    AND dropoff_datetime BETWEEN pickup_datetime AND pickup_datetime + INTERVAL '12' HOUR
                    THEN CAST(
                        CAST(FLOOR(EXTRACT(EPOCH FROM (dropoff_datetime - pickup_datetime))) AS BIGINT)
                        AS DOUBLE PRECISION
                    )
            END AS seconds,
            CASE
                WHEN COALESCE(total, 0) >= 0 AND miles BETWEEN 0 AND 200 THEN FLOOR(miles * 1000 + 0.5)
            END AS thousandths,
            FLOOR(total * 100 + 0.5) AS cents
        FROM (
            SELECT
                pickup_location_id,
                pickup_datetime,
                dropoff_datetime,
                trip_distance AS miles,
                total_amount AS total
            FROM trips
            WHERE dataset = :dataset AND month = :month
            UNION ALL
            SELECT
                pickup_location_id,
                pickup_datetime,
                dropoff_datetime,
                trip_miles AS miles,
                base_passenger_fare + COALESCE(tolls, 0) + COALESCE(bcf, 0) + COALESCE(sales_tax, 0)
                + COALESCE(congestion_surcharge, 0) + COALESCE(airport_fee, 0) + COALESCE(cbd_congestion_fee, 0)
                + COALESCE(tips, 0) AS total
            FROM for_hire_trips
            WHERE dataset = :dataset AND month = :month
        ) AS of_dataset
        WHERE
            pickup_datetime >= CAST(:month AS TIMESTAMP)
            AND pickup_datetime < CAST(:next_month AS TIMESTAMP)
            AND COALESCE(total, 0) BETWEEN -10000 AND 10000
    ) AS measured
    GROUP BY pickup_location_id, weekday, hour
) AS hours
LEFT JOIN zones ON zones.location_id = hours.pickup_location_id
