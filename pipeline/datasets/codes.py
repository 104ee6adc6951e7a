"""TLC's code lists, and the words that stand for codes in older files; shared by several datasets.

A word or code that TLC's lists lack gets a number above 100, which TLC does not use. Sources: TLC's data dictionaries
of the four datasets (the years 2009 to 2025 differ; these lists are their union),
https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page
"""

from __future__ import annotations

VENDORS: dict[int | str, str] = {
    1: "Creative Mobile Technologies (CMT)",
    2: "Curb Mobility, formerly VeriFone (VTS)",
    4: "not in TLC's list; seen in yellow 2018 and 2019",
    5: "not in TLC's list; seen in a few rows of green 2022",
    6: "Myle Technologies",
    7: "Helix",
    101: "DDS (Digital Dispatch Systems), until 2010; number given by this package",
}

#: In `vendor_name` (2009) and `vendor_id` (2010 to 2014) of yellow.
VENDOR_WORDS: dict[str, int | str] = {"CMT": 1, "VTS": 2, "DDS": 101}

PAYMENTS: dict[int | str, str] = {
    0: "flex fare",
    1: "credit card",
    2: "cash",
    3: "no charge",
    4: "dispute",
    5: "unknown",
    6: "voided trip",
    101: "the word NA, in yellow 2010; number given by this package",
}

#: In yellow until 2014, in many spellings: CASH, Cash, CAS, CSH, `No `, `NA ` ...
_PAYMENT_WORDS = {
    1: ("credit", "cre", "crd"),
    2: ("cash", "cas", "csh"),
    3: ("no charge", "noc", "no"),
    4: ("dispute", "dis"),
    5: ("unknown", "unk"),
    101: ("na",),
}
PAYMENT_WORDS: dict[str, int | str] = {word: code for code, words in _PAYMENT_WORDS.items() for word in words}

RATES: dict[int | str, str] = {
    0: "not in TLC's list; seen in yellow 2010 and 2011",
    1: "standard rate",
    2: "JFK",
    3: "Newark",
    4: "Nassau or Westchester",
    5: "negotiated fare",
    6: "group ride",
    99: "unknown",
}

YES_NO: dict[int | str, str] = {"Y": "yes", "N": "no"}

STORE_AND_FORWARD: dict[int | str, str] = {
    "Y": "held in the vehicle's memory and sent later, for want of a connection",
    "N": "sent at once",
}

#: Until 2010-07 yellow has 0 and 1 (doubles in the Parquet files of 2009).
STORE_AND_FORWARD_WORDS: dict[str, int | str] = {"0": "N", "1": "Y"}

TRIP_TYPES: dict[int | str, str] = {1: "street hail", 2: "dispatch"}

SHARED_RIDE: dict[int | str, str] = {0: "not a shared ride", 1: "part of a shared-ride chain"}

#: fhvhv 2021-06 as CSV writes N where other months have an empty field or 1.
SHARED_RIDE_WORDS: dict[str, int | str] = {"N": 0, "Y": 1}

LICENSES: dict[int | str, str] = {"HV0002": "Juno", "HV0003": "Uber", "HV0004": "Via", "HV0005": "Lyft"}
