-- How trips were paid: trips and money per type of payment.
--
-- datasets: yellow, green
-- columns:
--   payment_type: How the passenger paid, as a code.
--   payment: How the passenger paid, in words; null if the code is null or not listed.
--   trips: Plausible trips, without reversals.
--   reversals: Rows with a negative total, which take back another row.
--   fare_amount: Fares, less those of reversals. Unit: USD.
--   tip_amount: Tips paid by card, less those of reversals. Unit: USD.
--   total_amount: What passengers were charged, less reversals. Unit: USD.
--
-- What is plausible here:
-- * Only trips whose pickup is in the month: a file has a few pickups of other months and even other decades.
-- * A negative total is the reversal of a trip in another row. It counts as a reversal, not as a trip, and its money
--   is added, so that both rows cancel out where both have the same type of payment.
-- * A total beyond 10,000 dollars is a mistyped fare: the trip is left out. A trip without a total counts, without money.
-- * An amount beyond 1e9 is invalid: the trip counts, the amount does not.
-- * A type of payment that is null or not listed counts, with a payment that is null.
-- Tips are those paid by card; cash tips are not recorded. Sums are of whole cents: exact, and the same on every engine.
SELECT
    payment_type,
    payment,
    COUNT(CASE WHEN COALESCE(total, 0) >= 0 THEN 1 END) AS trips,
    COUNT(CASE WHEN total < 0 THEN 1 END) AS reversals,
    CAST(SUM(fare) AS DECIMAL(20, 0)) * CAST(0.01 AS DECIMAL(3, 2)) AS fare_amount,
    CAST(SUM(tip) AS DECIMAL(20, 0)) * CAST(0.01 AS DECIMAL(3, 2)) AS tip_amount,
    CAST(SUM(FLOOR(total * 100 + 0.5)) / 100 AS DECIMAL(18, 2)) AS total_amount
FROM (
    SELECT
        payment_type,
        payment,
        total_amount AS total,
        CASE WHEN fare_amount BETWEEN -1e9 AND 1e9 THEN CAST(FLOOR(fare_amount * 100 + 0.5) AS BIGINT) END AS fare,
        CASE WHEN tip_amount BETWEEN -1e9 AND 1e9 THEN CAST(FLOOR(tip_amount * 100 + 0.5) AS BIGINT) END AS tip
    FROM trips
    WHERE
        dataset = :dataset
        AND month = :month
        AND pickup_datetime >= CAST(:month AS TIMESTAMP)
        AND pickup_datetime < CAST(:next_month AS TIMESTAMP)
        AND COALESCE(total_amount, 0) BETWEEN -10000 AND 10000
) AS counted
GROUP BY payment_type, payment
