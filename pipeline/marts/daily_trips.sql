-- Trips per day of the pickup: how many, how far, what was paid.
--
-- datasets: yellow, green
-- columns:
--   day: Day of the pickup.
--   trips: Plausible trips, without reversals.
--   reversals: Rows with a negative total, which take back another row.
--   passengers: Passengers of the trips.
--   trip_miles: Miles of the trips.
--   fare_amount: Fares, less those of reversals. Unit: USD.
--   tip_amount: Tips paid by card, less those of reversals. Unit: USD.
--   total_amount: What passengers were charged, less reversals. Unit: USD.
--
-- What is plausible here:
-- * Only trips whose pickup is in the month: a file has a few pickups of other months and even other decades. So each
--   day belongs to one month; a pickup in another month's file is not counted.
-- * A negative total is the reversal of a trip in another row. It counts as a reversal, not as a trip, and its money
--   is added, so that both rows cancel out.
-- * A total beyond 10,000 dollars is a mistyped fare: the trip is left out. A trip without a total counts, without money.
-- * A distance below 0 or above 200 miles is an error of the meter: the trip counts, its miles do not.
-- * An amount or a number of passengers beyond 1e9 is invalid: the trip counts, the number does not. The rule
--   huge_numbers of the checks has the same limit; the sums can hold all numbers within it.
-- Sums are of decimals: exact, and the same on every engine in any order of the rows.
SELECT
    CAST(pickup_datetime AS DATE) AS day,
    COUNT(CASE WHEN COALESCE(total_amount, 0) >= 0 THEN 1 END) AS trips,
    COUNT(CASE WHEN total_amount < 0 THEN 1 END) AS reversals,
    CAST(
        SUM(
            CASE
                WHEN COALESCE(total_amount, 0) >= 0 AND passenger_count BETWEEN -1e9 AND 1e9
                    THEN passenger_count
            END
        )
        AS BIGINT
    ) AS passengers,
    SUM(
        CASE
            WHEN COALESCE(total_amount, 0) >= 0 AND trip_distance BETWEEN 0 AND 200
                THEN CAST(trip_distance AS DECIMAL(18, 2))
        END
    ) AS trip_miles,
    SUM(CASE WHEN fare_amount BETWEEN -1e9 AND 1e9 THEN CAST(fare_amount AS DECIMAL(18, 2)) END) AS fare_amount,
    SUM(CASE WHEN tip_amount BETWEEN -1e9 AND 1e9 THEN CAST(tip_amount AS DECIMAL(18, 2)) END) AS tip_amount,
    SUM(CAST(total_amount AS DECIMAL(18, 2))) AS total_amount
FROM trips
WHERE
    dataset = :dataset
    AND month = :month
    AND pickup_datetime >= CAST(:month AS TIMESTAMP)
    AND pickup_datetime < CAST(:next_month AS TIMESTAMP)
    AND COALESCE(total_amount, 0) BETWEEN -10000 AND 10000
GROUP BY CAST(pickup_datetime AS DATE)
