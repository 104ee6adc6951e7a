-- Trips to and from the airports: how many, how long, how far, which fees and tolls.
--
-- datasets: yellow, green, fhv, fhvhv
-- columns:
--   airport: JFK, LaGuardia or Newark.
--   direction: from the airport, or to it.
--   trips: Plausible trips, without reversals.
--   minutes: Mean duration. Unit: minutes.
--   miles: Mean distance. Unit: miles.
--   airport_fee: Airport fees, less those of reversals; null for green and fhv. Unit: USD.
--   tolls_amount: Tolls, less those of reversals; null for fhv. Unit: USD.
--   total_amount: What passengers paid, less reversals; null for fhv. Unit: USD.
--
-- Airports are taxi zones: 1 (Newark), 132 (JFK), 138 (LaGuardia). A trip is from the zone of its pickup and to the
-- zone of its drop-off; from one airport to another it counts for both. What is plausible here:
-- * Only trips whose pickup is in the month: a file has a few pickups of other months and even other decades.
-- * The total of fhvhv is what the passenger paid: fare, tolls, taxes, surcharges, fees and tips. Fees are null for
--   green; fees, tolls and totals are null for fhv.
-- * A negative total is the reversal of a trip in another row. It does not count as a trip, and its money is added, so
--   that both rows cancel out.
-- * A total beyond 10,000 dollars is a mistyped fare: the trip is left out. A trip without a total counts, without money.
-- * A distance below 0 or above 200 miles is an error of the meter: the trip counts, its miles do not.
-- * A duration below 0 or above 12 hours is an error of the clock: the trip counts, its time does not.
-- * An amount beyond 1e9 is invalid: the trip counts, the amount does not.
-- All is computed from whole cents, seconds and thousandths of a mile, and means are rounded half up to hundredths: the
-- same on every engine in any order of the rows. DOUBLE PRECISION adds up whole numbers exactly as far as 2 ** 53.
SELECT
    airport,
    direction,
    COUNT(CASE WHEN COALESCE(total, 0) >= 0 THEN 1 END) AS trips,
    CAST(FLOOR(100 * SUM(seconds) / NULLIF(60 * COUNT(seconds), 0) + 0.5) / 100 AS DECIMAL(18, 2)) AS minutes,
    CAST(FLOOR(SUM(thousandths) / NULLIF(10 * COUNT(thousandths), 0) + 0.5) / 100 AS DECIMAL(18, 2)) AS miles,
    CAST(SUM(fee_cents) AS DECIMAL(20, 0)) * CAST(0.01 AS DECIMAL(3, 2)) AS airport_fee,
    CAST(SUM(tolls_cents) AS DECIMAL(20, 0)) * CAST(0.01 AS DECIMAL(3, 2)) AS tolls_amount,
    CAST(SUM(FLOOR(total * 100 + 0.5)) / 100 AS DECIMAL(18, 2)) AS total_amount
FROM (
    SELECT
        CASE CASE direction WHEN 'from' THEN pickup_location_id ELSE dropoff_location_id END
            WHEN 1 THEN 'Newark'
            WHEN 132 THEN 'JFK'
            WHEN 138 THEN 'LaGuardia'
        END AS airport,
        direction,
        CASE
            WHEN COALESCE(total, 0) >= 0
                AND dropoff_datetime BETWEEN pickup_datetime AND pickup_datetime + INTERVAL '12' HOUR
                THEN CAST(
                    CAST(FLOOR(EXTRACT(EPOCH FROM (dropoff_datetime - pickup_datetime))) AS BIGINT) AS DOUBLE PRECISION
                )
        END AS seconds,
        CASE
            WHEN COALESCE(total, 0) >= 0 AND miles BETWEEN 0 AND 200 THEN FLOOR(miles * 1000 + 0.5)
        END AS thousandths,
        CASE WHEN fee BETWEEN -1e9 AND 1e9 THEN CAST(FLOOR(fee * 100 + 0.5) AS BIGINT) END AS fee_cents,
        CASE WHEN tolls BETWEEN -1e9 AND 1e9 THEN CAST(FLOOR(tolls * 100 + 0.5) AS BIGINT) END AS tolls_cents,
        total
    FROM (
        SELECT
            pickup_location_id,
            dropoff_location_id,
            pickup_datetime,
            dropoff_datetime,
            trip_distance AS miles,
            airport_fee AS fee,
            tolls_amount AS tolls,
            total_amount AS total
        FROM trips
        WHERE dataset = :dataset AND month = :month
        UNION ALL
        SELECT
            pickup_location_id,
            dropoff_location_id,
            pickup_datetime,
            dropoff_datetime,
            trip_miles AS miles,
            airport_fee AS fee,
            tolls,
            base_passenger_fare + COALESCE(tolls, 0) + COALESCE(bcf, 0) + COALESCE(sales_tax, 0)
            + COALESCE(congestion_surcharge, 0) + COALESCE(airport_fee, 0) + COALESCE(cbd_congestion_fee, 0)
            + COALESCE(tips, 0) AS total
        FROM for_hire_trips
        WHERE dataset = :dataset AND month = :month
    ) AS of_dataset
    CROSS JOIN (VALUES ('from'), ('to')) AS directions (direction)
    WHERE
        pickup_datetime >= CAST(:month AS TIMESTAMP)
        AND pickup_datetime < CAST(:next_month AS TIMESTAMP)
        AND (pickup_location_id IN (1, 132, 138) OR dropoff_location_id IN (1, 132, 138))
        AND COALESCE(total, 0) BETWEEN -10000 AND 10000
) AS measured
WHERE airport IS NOT NULL
GROUP BY airport, direction
