-- Trips and what they brought in, per month and taxi zone of the pickup.
--
-- datasets: yellow, green
-- columns:
--   pickup_location_id: Taxi zone of the pickup.
--   pickup_borough: Borough of the pickup.
--   pickup_zone: Name of the pickup's zone.
--   trips: Plausible trips, without reversals.
--   reversals: Rows with a negative total, which take back another row.
--   passengers: Passengers of the trips.
--   trip_miles: Miles of the trips.
--   fare_amount: Fares, less those of reversals. Unit: USD.
--   extra: Extras and surcharges, such as rush hour and overnight. Unit: USD.
--   mta_tax: Tax that the metered rate triggers. Unit: USD.
--   tip_amount: Tips paid by card, less those of reversals. Unit: USD.
--   tolls_amount: Tolls. Unit: USD.
--   improvement_surcharge: Surcharge since 2015. Unit: USD.
--   congestion_surcharge: New York State's surcharge for trips in Manhattan south of 96th Street. Unit: USD.
--   cbd_congestion_fee: MTA's toll for the Congestion Relief Zone. Unit: USD.
--   total_amount: What passengers were charged, less reversals. Unit: USD.
--
-- What is plausible here:
-- * Only trips whose pickup is in the month: a file has a few pickups of other months and even other decades.
-- * A negative total is the reversal of a trip in another row. It counts as a reversal, not as a trip, and its money
--   is added, so that both rows cancel out.
-- * A total beyond 10,000 dollars is a mistyped fare: the trip is left out. A trip without a total counts, without money.
-- * A distance below 0 or above 200 miles is an error of the meter: the trip counts, its miles do not.
-- * A trip without a zone counts, under a zone that is null.
-- * An amount or a number of passengers beyond 1e9 is invalid: the trip counts, the number does not. The rule
--   huge_numbers of the checks has the same limit; the sums can hold all numbers within it.
-- Sums are of decimals: exact, and the same on every engine in any order of the rows.
SELECT
    pickup_location_id,
    pickup_borough,
    pickup_zone,
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
    SUM(CASE WHEN extra BETWEEN -1e9 AND 1e9 THEN CAST(extra AS DECIMAL(18, 2)) END) AS extra,
    SUM(CASE WHEN mta_tax BETWEEN -1e9 AND 1e9 THEN CAST(mta_tax AS DECIMAL(18, 2)) END) AS mta_tax,
    SUM(CASE WHEN tip_amount BETWEEN -1e9 AND 1e9 THEN CAST(tip_amount AS DECIMAL(18, 2)) END) AS tip_amount,
    SUM(CASE WHEN tolls_amount BETWEEN -1e9 AND 1e9 THEN CAST(tolls_amount AS DECIMAL(18, 2)) END) AS tolls_amount,
    SUM(CASE WHEN improvement_surcharge BETWEEN -1e9 AND 1e9 THEN CAST(improvement_surcharge AS DECIMAL(18, 2)) END)
        AS improvement_surcharge,
    SUM(CASE WHEN congestion_surcharge BETWEEN -1e9 AND 1e9 THEN CAST(congestion_surcharge AS DECIMAL(18, 2)) END)
        AS congestion_surcharge,
    SUM(CASE WHEN cbd_congestion_fee BETWEEN -1e9 AND 1e9 THEN CAST(cbd_congestion_fee AS DECIMAL(18, 2)) END)
        AS cbd_congestion_fee,
    SUM(CAST(total_amount AS DECIMAL(18, 2))) AS total_amount
FROM trips
WHERE
    dataset = :dataset
    AND month = :month
    AND pickup_datetime >= CAST(:month AS TIMESTAMP)
    AND pickup_datetime < CAST(:next_month AS TIMESTAMP)
    AND COALESCE(total_amount, 0) BETWEEN -10000 AND 10000
GROUP BY pickup_location_id, pickup_borough, pickup_zone
