-- The questions that the homework of the Data Engineering Zoomcamp asks of TLC's data, as queries on the views with
-- TLC's names. docs/course.md explains them; tests/course and `make course` run them.
--
-- Each query starts with: cohort and module | source of the files | dataset and months. The source is tlc (TLC's Parquet
-- files of today) or mirror (the course's copy of TLC's old CSVs). The answer has " | " between columns and " ; "
-- between rows; "?" means that we know of no published answer for these files.

-- 2022 module 1 | mirror | yellow 2021-01
-- Trips that started on 15 January.
-- answer: 53024
SELECT COUNT(*) AS trips
FROM yellow_tripdata
WHERE CAST(tpep_pickup_datetime AS DATE) = '2021-01-15';

-- 2022 module 1 | mirror | yellow 2021-01
-- The day in January with the largest tip.
-- answer: 2021-01-20
SELECT CAST(tpep_pickup_datetime AS DATE) AS day
FROM yellow_tripdata
WHERE tpep_pickup_datetime >= '2021-01-01' AND tpep_pickup_datetime < '2021-02-01'
ORDER BY tip_amount DESC
LIMIT 1;

-- 2022 module 1 | mirror | yellow 2021-01
-- Where most trips from Central Park ended on 14 January.
-- answer: Upper East Side South
SELECT COALESCE(dropoff.Zone, 'Unknown') AS zone
FROM yellow_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
LEFT JOIN taxi_zone_lookup AS dropoff ON dropoff.LocationID = trip.DOLocationID
WHERE pickup.Zone = 'Central Park' AND CAST(tpep_pickup_datetime AS DATE) = '2021-01-14'
GROUP BY 1
ORDER BY COUNT(*) DESC
LIMIT 1;

-- 2022 module 1 | mirror | yellow 2021-01
-- The two zones between which the mean total was the highest. Zone 265 is outside of New York.
-- answer: Alphabet City | Unknown
SELECT
    CASE WHEN PULocationID = 265 THEN 'Unknown' ELSE pickup.Zone END AS pickup_zone,
    CASE WHEN DOLocationID = 265 THEN 'Unknown' ELSE dropoff.Zone END AS dropoff_zone
FROM yellow_tripdata AS trip
LEFT JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
LEFT JOIN taxi_zone_lookup AS dropoff ON dropoff.LocationID = trip.DOLocationID
GROUP BY 1, 2
ORDER BY AVG(total_amount) DESC
LIMIT 1;

-- 2022 module 3 | mirror | fhv 2019
-- Bases that dispatched trips.
-- answer: ?
SELECT COUNT(DISTINCT dispatching_base_num) AS bases FROM fhv_tripdata;

-- 2022 module 3 | mirror | fhv 2019
-- Trips of three bases in the first quarter.
-- answer: ?
SELECT COUNT(*) AS trips
FROM fhv_tripdata
WHERE
    CAST(pickup_datetime AS DATE) BETWEEN '2019-01-01' AND '2019-03-31'
    AND dispatching_base_num IN ('B00987', 'B02060', 'B02279');

-- 2023 module 1 | mirror | green 2019-01
-- Trips that started and ended on 15 January.
-- answer: 20530
SELECT COUNT(*) AS trips
FROM green_tripdata
WHERE
    CAST(lpep_pickup_datetime AS DATE) = '2019-01-15'
    AND CAST(lpep_dropoff_datetime AS DATE) = '2019-01-15';

-- 2023 module 1 | mirror | green 2019-01
-- Trips that started on 15 January.
-- answer: 20689
SELECT COUNT(*) AS trips
FROM green_tripdata
WHERE CAST(lpep_pickup_datetime AS DATE) = '2019-01-15';

-- 2023 module 1 | mirror | green 2019-01
-- The day on which the longest trip started.
-- answer: 2019-01-15
SELECT CAST(lpep_pickup_datetime AS DATE) AS day
FROM green_tripdata
ORDER BY trip_distance DESC
LIMIT 1;

-- 2023 module 1 | mirror | green 2019-01
-- Trips with two and with three passengers on 1 January.
-- answer: 2 | 1282 ; 3 | 254
SELECT passenger_count, COUNT(*) AS trips
FROM green_tripdata
WHERE CAST(lpep_pickup_datetime AS DATE) = '2019-01-01' AND passenger_count IN (2, 3)
GROUP BY passenger_count
ORDER BY passenger_count;

-- 2023 module 1 | mirror | green 2019-01
-- Where the trip from Astoria with the largest tip ended.
-- answer: Long Island City/Queens Plaza
SELECT dropoff.Zone
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
JOIN taxi_zone_lookup AS dropoff ON dropoff.LocationID = trip.DOLocationID
WHERE pickup.Zone = 'Astoria'
ORDER BY tip_amount DESC
LIMIT 1;

-- 2023 module 2 | mirror | green 2020-01
-- Trips of the month.
-- answer: 447770
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2023 module 2 | tlc | green 2020-01
-- Trips of the month.
-- answer: 447770
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2023 module 2 | mirror | yellow 2019-02..2019-03
-- Trips of two months.
-- answer: 14851920
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2023 module 2 | tlc | yellow 2019-02..2019-03
-- Trips of two months.
-- answer: 14915990
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2023 module 2 | mirror | green 2020-11
-- Trips of the month.
-- answer: 88605
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2023 module 2 | tlc | green 2020-11
-- Trips of the month.
-- answer: 88605
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2023 module 2 | mirror | green 2019-04
-- Trips of the month.
-- answer: 514392
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2023 module 2 | tlc | green 2019-04
-- Trips of the month.
-- answer: 567852
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2023 module 3 | mirror | fhv 2019
-- Trips of the year.
-- answer: 43244696
SELECT COUNT(*) AS trips FROM fhv_tripdata;

-- 2023 module 3 | mirror | fhv 2019
-- Trips without both zones.
-- answer: 717748
SELECT COUNT(*) AS trips FROM fhv_tripdata WHERE PULocationID IS NULL AND DOLocationID IS NULL;

-- 2023 module 3 | mirror | fhv 2019
-- Affiliated bases of the year.
-- answer: 3163
SELECT COUNT(DISTINCT Affiliated_base_number) AS bases FROM fhv_tripdata;

-- 2023 module 3 | mirror | fhv 2019
-- Affiliated bases of March.
-- answer: 722
SELECT COUNT(DISTINCT Affiliated_base_number) AS bases
FROM fhv_tripdata
WHERE CAST(pickup_datetime AS DATE) BETWEEN '2019-03-01' AND '2019-03-31';

-- 2024 module 1 | mirror | green 2019-09
-- Trips that started and ended on 18 September.
-- answer: 15612
SELECT COUNT(*) AS trips
FROM green_tripdata
WHERE
    CAST(lpep_pickup_datetime AS DATE) = '2019-09-18'
    AND CAST(lpep_dropoff_datetime AS DATE) = '2019-09-18';

-- 2024 module 1 | mirror | green 2019-09
-- The day of the longest trip, and its miles.
-- answer: 2019-09-26 | 341.64
SELECT CAST(lpep_pickup_datetime AS DATE) AS day, trip_distance
FROM green_tripdata
ORDER BY trip_distance DESC
LIMIT 1;

-- 2024 module 1 | mirror | green 2019-09
-- The pickup boroughs with a total above 50,000 dollars on 18 September.
-- answer: Brooklyn | 96333.24 ; Manhattan | 92271.30 ; Queens | 78671.71
SELECT pickup.Borough, CAST(SUM(total_amount) AS DECIMAL(18, 2)) AS total
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
WHERE CAST(lpep_pickup_datetime AS DATE) = '2019-09-18'
GROUP BY pickup.Borough
HAVING SUM(total_amount) > 50000
ORDER BY total DESC;

-- 2024 module 1 | mirror | green 2019-09
-- The three pickup zones with the largest totals on 18 September.
-- answer: East Harlem North | 17893.06 ; East Harlem South | 17152.16 ; Morningside Heights | 11259.68
SELECT pickup.Zone, CAST(SUM(total_amount) AS DECIMAL(18, 2)) AS total
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
WHERE CAST(lpep_pickup_datetime AS DATE) = '2019-09-18'
GROUP BY pickup.Zone
ORDER BY total DESC
LIMIT 3;

-- 2024 module 1 | mirror | green 2019-09
-- Where the trip from Astoria with the largest tip of September ended, and the tip.
-- answer: JFK Airport | 62.31
SELECT dropoff.Zone, tip_amount
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
JOIN taxi_zone_lookup AS dropoff ON dropoff.LocationID = trip.DOLocationID
WHERE
    pickup.Zone = 'Astoria'
    AND lpep_pickup_datetime >= '2019-09-01' AND lpep_pickup_datetime < '2019-10-01'
ORDER BY tip_amount DESC
LIMIT 1;

-- 2024 module 2 | mirror | green 2020-10..2020-12
-- Trips of the quarter.
-- answer: 266855
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2024 module 2 | tlc | green 2020-10..2020-12
-- Trips of the quarter.
-- answer: 266855
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2024 module 2 | mirror | green 2020-10..2020-12
-- Trips with passengers and a distance.
-- answer: 139370
SELECT COUNT(*) AS trips FROM green_tripdata WHERE passenger_count > 0 AND trip_distance > 0;

-- 2024 module 2 | mirror | green 2020-10..2020-12
-- The vendors.
-- answer: 1 ; 2
SELECT DISTINCT VendorID FROM green_tripdata WHERE VendorID IS NOT NULL ORDER BY VendorID;

-- 2024 module 2 | mirror | green 2020-10..2020-12
-- Days on which trips started: of all, and of those with passengers and a distance.
-- answer: 96 | 95
SELECT
    COUNT(DISTINCT CAST(lpep_pickup_datetime AS DATE)) AS days,
    COUNT(
        DISTINCT CASE WHEN passenger_count > 0 AND trip_distance > 0 THEN CAST(lpep_pickup_datetime AS DATE) END
    ) AS days_of_plausible_trips
FROM green_tripdata;

-- 2024 module 3 | tlc | green 2022
-- Trips of the year.
-- answer: 840402
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2024 module 3 | tlc | green 2022
-- Trips whose fare is 0.
-- answer: 1622
SELECT COUNT(*) AS trips FROM green_tripdata WHERE fare_amount = 0;

-- 2024 module 3 | tlc | green 2022
-- Pickup zones of the year.
-- answer: ?
SELECT COUNT(DISTINCT PULocationID) AS zones FROM green_tripdata;

-- 2024 module 3 | tlc | green 2022
-- Pickup zones in June.
-- answer: ?
SELECT COUNT(DISTINCT PULocationID) AS zones
FROM green_tripdata
WHERE CAST(lpep_pickup_datetime AS DATE) BETWEEN '2022-06-01' AND '2022-06-30';

-- 2025 module 1 | mirror | green 2019-10
-- Trips within October: up to 1 mile, to 3, to 7, to 10, and longer ones.
-- answer: 104802 | 198924 | 109603 | 27678 | 35189
SELECT
    COUNT(CASE WHEN trip_distance <= 1 THEN 1 END) AS up_to_1_mile,
    COUNT(CASE WHEN trip_distance > 1 AND trip_distance <= 3 THEN 1 END) AS up_to_3_miles,
    COUNT(CASE WHEN trip_distance > 3 AND trip_distance <= 7 THEN 1 END) AS up_to_7_miles,
    COUNT(CASE WHEN trip_distance > 7 AND trip_distance <= 10 THEN 1 END) AS up_to_10_miles,
    COUNT(CASE WHEN trip_distance > 10 THEN 1 END) AS longer
FROM green_tripdata
WHERE lpep_pickup_datetime >= '2019-10-01' AND lpep_dropoff_datetime < '2019-11-01';

-- 2025 module 1 | mirror | green 2019-10
-- The day of the longest trip, and its miles.
-- answer: 2019-10-31 | 515.89
SELECT CAST(lpep_pickup_datetime AS DATE) AS day, trip_distance
FROM green_tripdata
ORDER BY trip_distance DESC
LIMIT 1;

-- 2025 module 1 | mirror | green 2019-10
-- The pickup zones with a total above 13,000 dollars on 18 October.
-- answer: East Harlem North | 18686.68 ; East Harlem South | 16797.26 ; Morningside Heights | 13029.79
SELECT pickup.Zone, CAST(SUM(total_amount) AS DECIMAL(18, 2)) AS total
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
WHERE CAST(lpep_pickup_datetime AS DATE) = '2019-10-18'
GROUP BY pickup.Zone
HAVING SUM(total_amount) > 13000
ORDER BY total DESC;

-- 2025 module 1 | mirror | green 2019-10
-- Where the trip from East Harlem North with the largest tip of October ended, and the tip.
-- answer: JFK Airport | 87.3
SELECT dropoff.Zone, tip_amount
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
JOIN taxi_zone_lookup AS dropoff ON dropoff.LocationID = trip.DOLocationID
WHERE
    pickup.Zone = 'East Harlem North'
    AND lpep_pickup_datetime >= '2019-10-01' AND lpep_pickup_datetime < '2019-11-01'
ORDER BY tip_amount DESC
LIMIT 1;

-- 2025 module 2 | mirror | yellow 2020
-- Trips of the year.
-- answer: 24648499
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 module 2 | tlc | yellow 2020
-- Trips of the year.
-- answer: 24649092
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 module 2 | mirror | green 2020
-- Trips of the year.
-- answer: 1734051
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2025 module 2 | tlc | green 2020
-- Trips of the year.
-- answer: 1734176
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2025 module 2 | mirror | yellow 2021-03
-- Trips of the month.
-- answer: 1925152
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 module 2 | tlc | yellow 2021-03
-- Trips of the month.
-- answer: 1925152
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 and 2026 module 3 | tlc | yellow 2024-01..2024-06
-- Trips of half a year.
-- answer: 20332093
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 and 2026 module 3 | tlc | yellow 2024-01..2024-06
-- Trips whose fare is 0.
-- answer: 8333
SELECT COUNT(*) AS trips FROM yellow_tripdata WHERE fare_amount = 0;

-- 2025 and 2026 module 3 | tlc | yellow 2024-01..2024-06
-- Pickup zones.
-- answer: ?
SELECT COUNT(DISTINCT PULocationID) AS zones FROM yellow_tripdata;

-- 2025 and 2026 module 3 | tlc | yellow 2024-01..2024-06
-- The vendors of trips that ended in the first half of March.
-- answer: ?
SELECT DISTINCT VendorID
FROM yellow_tripdata
WHERE CAST(tpep_dropoff_datetime AS DATE) BETWEEN '2024-03-01' AND '2024-03-15'
ORDER BY VendorID;

-- 2025 module 4 | mirror | yellow 2019..2020
-- Trips of two years.
-- answer: 109047518
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 module 4 | tlc | yellow 2019..2020
-- Trips of two years.
-- answer: 109247536
SELECT COUNT(*) AS trips FROM yellow_tripdata;

-- 2025 module 4 | mirror | green 2019..2020
-- Trips of two years.
-- answer: 7778101
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2025 module 4 | tlc | green 2019..2020
-- Trips of two years.
-- answer: 8035161
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2025 module 4 | tlc | fhv 2019
-- Trips of the year.
-- answer: 43261276
SELECT COUNT(*) AS trips FROM fhv_tripdata;

-- 2025 module 5 | tlc | yellow 2024-10
-- Trips that started on 15 October.
-- answer: 128893
SELECT COUNT(*) AS trips FROM yellow_tripdata WHERE CAST(tpep_pickup_datetime AS DATE) = '2024-10-15';

-- 2025 module 5 | tlc | yellow 2024-10
-- Whole hours of the longest trip.
-- answer: 162
SELECT CAST(FLOOR(MAX(EXTRACT(EPOCH FROM (tpep_dropoff_datetime - tpep_pickup_datetime))) / 3600) AS INTEGER) AS hours
FROM yellow_tripdata;

-- 2025 module 5 | tlc | yellow 2024-10
-- The rarest pickup zone.
-- answer: Governor's Island/Ellis Island/Liberty Island
SELECT pickup.Zone
FROM yellow_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
GROUP BY pickup.Zone
ORDER BY COUNT(*)
LIMIT 1;

-- 2026 module 1 | tlc | green 2025-11
-- Trips of the file.
-- answer: 46912
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2026 module 1 | tlc | green 2025-11
-- Trips in November of up to one mile.
-- answer: 8007
SELECT COUNT(*) AS trips
FROM green_tripdata
WHERE lpep_pickup_datetime >= '2025-11-01' AND lpep_pickup_datetime < '2025-12-01' AND trip_distance <= 1;

-- 2026 module 1 | tlc | green 2025-11
-- The day of the longest trip under 100 miles, and its miles.
-- answer: 2025-11-14 | 88.03
SELECT CAST(lpep_pickup_datetime AS DATE) AS day, trip_distance
FROM green_tripdata
WHERE trip_distance < 100
ORDER BY trip_distance DESC
LIMIT 1;

-- 2026 module 1 | tlc | green 2025-11
-- The pickup zone with the largest total on 18 November, and the total.
-- answer: East Harlem North | 9281.92
SELECT pickup.Zone, CAST(SUM(total_amount) AS DECIMAL(18, 2)) AS total
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
WHERE CAST(lpep_pickup_datetime AS DATE) = '2025-11-18'
GROUP BY pickup.Zone
ORDER BY total DESC
LIMIT 1;

-- 2026 module 1 | tlc | green 2025-11
-- Where the trip from East Harlem North with the largest tip of November ended, and the tip.
-- answer: Yorkville West | 81.89
SELECT dropoff.Zone, tip_amount
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
JOIN taxi_zone_lookup AS dropoff ON dropoff.LocationID = trip.DOLocationID
WHERE
    pickup.Zone = 'East Harlem North'
    AND lpep_pickup_datetime >= '2025-11-01' AND lpep_pickup_datetime < '2025-12-01'
ORDER BY tip_amount DESC
LIMIT 1;

-- 2026 module 6 | tlc | yellow 2025-11
-- Trips that started on 15 November.
-- answer: 162604
SELECT COUNT(*) AS trips FROM yellow_tripdata WHERE CAST(tpep_pickup_datetime AS DATE) = '2025-11-15';

-- 2026 module 6 | tlc | yellow 2025-11
-- Hours of the longest trip.
-- answer: 90.6
SELECT CAST(MAX(EXTRACT(EPOCH FROM (tpep_dropoff_datetime - tpep_pickup_datetime))) / 3600 AS DECIMAL(9, 1)) AS hours
FROM yellow_tripdata;

-- 2026 module 7 | tlc | green 2025-10
-- Trips of the file.
-- answer: 49416
SELECT COUNT(*) AS trips FROM green_tripdata;

-- 2026 module 7 | tlc | green 2025-10
-- Trips of more than 5 miles.
-- answer: 8506
SELECT COUNT(*) AS trips FROM green_tripdata WHERE trip_distance > 5;

-- 2026 module 7 | tlc | green 2025-10
-- The busiest pickup zone, and its number.
-- answer: East Harlem North | 74
SELECT pickup.Zone, PULocationID
FROM green_tripdata AS trip
JOIN taxi_zone_lookup AS pickup ON pickup.LocationID = trip.PULocationID
GROUP BY pickup.Zone, PULocationID
ORDER BY COUNT(*) DESC
LIMIT 1;

-- 2026 module 7 | tlc | green 2025-10
-- The pickup zone with the most trips within five minutes, counted from the full hour.
-- answer: ?
SELECT PULocationID, COUNT(*) AS trips
FROM green_tripdata
GROUP BY PULocationID, FLOOR(EXTRACT(EPOCH FROM lpep_pickup_datetime) / 300)
ORDER BY trips DESC
LIMIT 1;

-- 2026 module 7 | tlc | green 2025-10
-- The pickup zone with the longest streak of trips, each at most five minutes after the one before.
-- answer: ?
SELECT PULocationID, COUNT(*) AS trips
FROM (
    SELECT PULocationID, SUM(starts) OVER (PARTITION BY PULocationID ORDER BY lpep_pickup_datetime) AS streak
    FROM (
        SELECT
            PULocationID,
            lpep_pickup_datetime,
            CASE
                WHEN EXTRACT(EPOCH FROM lpep_pickup_datetime) - LAG(EXTRACT(EPOCH FROM lpep_pickup_datetime))
                    OVER (PARTITION BY PULocationID ORDER BY lpep_pickup_datetime) <= 300
                    THEN 0
                ELSE 1
            END AS starts
        FROM green_tripdata
    ) AS judged
) AS numbered
GROUP BY PULocationID, streak
ORDER BY trips DESC
LIMIT 1;

-- 2026 module 7 | tlc | green 2025-10
-- The day and the hour with the largest tips.
-- answer: ?
SELECT CAST(lpep_pickup_datetime AS DATE) AS day, CAST(EXTRACT(HOUR FROM lpep_pickup_datetime) AS INTEGER) AS hour
FROM green_tripdata
GROUP BY 1, 2
ORDER BY SUM(tip_amount) DESC
LIMIT 1;
