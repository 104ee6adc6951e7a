-- Trips per day of the pickup: how many, how far, what was paid.
--
-- datasets: yellow, green
--
-- What is plausible here:
-- * Only trips whose pickup lies in the month: a file holds a few strays, from other months and even other decades. The
--   days thus belong to one month each; a stray in another month's file is counted nowhere.
-- * A negative total is the reversal of a trip that stands beside it. It counts as a reversal, not as a trip, and its
--   money counts, so that reversed and reversing row cancel out.
-- * A total beyond 10,000 dollars is a mistyped fare. A trip without a total stays, as one without money.
-- * A distance below 0 or above 200 miles is the meter's fault: the trip stays, its miles do not.
-- * An amount or a number of passengers beyond 1e9 is none: the trip stays, the number does not. The check's rule
--   huge_numbers has the same limit; whatever is within it fits into the sums here.
-- Sums are of decimals: exact, and the same on every engine in whatever order the rows come.
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
