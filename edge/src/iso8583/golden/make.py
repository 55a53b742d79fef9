"""Makes golden.json: messages as pyiso8583 4.0.1 writes them, by both of its default specs.

    pip install pyiso8583==4.0.1
    python3 make.py > golden.json

Each case has its fields (bytes as upper-case hex), the message by the spec default_ascii as text, and
the message by the spec default as hex. The card numbers are those that networks publish for tests.
The table has field, digits of its length, longest value and whether it is binary, by the spec default.
"""

import json

import iso8583
from iso8583 import specs

PURCHASE = {
    "2": "4111111111111111", "3": "000000", "4": "000000012345", "7": "1127221500",
    "11": "004711", "12": "171500", "13": "1127", "18": "5411", "22": "051", "25": "00",
    "32": "400123", "37": "633122004711", "41": "TERM0001", "42": "TARGET000123   ",
    "43": "TARGET T-1234            MINNEAPOLIS  US", "49": "840",
}
ADVICE = PURCHASE | {"38": "A1B2C3", "39": "00", "60": "9020"}
ORIGINAL = "0100" + "004711" + "1127221500" + "00000400123" + "00000000000"
REVERSAL = PURCHASE | {"7": "1127221530", "11": "004712", "90": ORIGINAL}
PARTIAL = REVERSAL | {"95": "000000010000" + "0" * 12 + "C00000000" + "D00000000"}
NETWORK = {"7": "1127221500", "11": "000001", "70": "301"}

# Every field that the table knows, most at their longest.
FULL = {
    "2": "6304000000000000000", "3": "003000", "4": "999999999999", "5": "000000000001",
    "6": "000000000000", "7": "1231235959", "8": "00000001", "9": "61234567", "10": "71234567",
    "11": "999999", "12": "235959", "13": "1231", "14": "3012", "15": "0101", "16": "1231",
    "17": "1231", "18": "5411", "19": "840", "20": "840", "21": "840", "22": "071", "23": "001",
    "24": "100", "25": "59", "26": "12", "27": "6", "28": "C00000001", "29": "D00000002",
    "30": "C00000003", "31": "D00000004", "32": "12345678901", "33": "1",
    "34": "ABC-12345678901234567890 end",
    "35": "4111111111111111=30122010000000000000", "36": "59" + "4111111111111111=" + "1" * 85,
    "37": "AB1234567890", "38": "123   ", "39": "Z3", "40": "A1 ", "41": "T-1 #/~ ", "42": "*" * 15,
    "43": "MICROSOFT   *XBOX      BILL.XBOX.COM IRL", "44": "x" * 25,
    "45": "B4111111111111111^DOE/JANE ^3012201" + "0" * 41, "46": "4" * 999, "47": "7",
    "48": "T" + "8" * 100, "49": "978", "50": "392", "51": "048", "52": "0123456789ABCDEF",
    "53": "2001010100000000", "54": "0002840C000000001000" * 12, "55": "9F2608" + "A5" * 252,
    "56": "a", "57": "b" * 10, "58": "c", "59": "d", "60": "e", "61": "f", "62": "g", "63": "h" * 999,
    "64": "FEDCBA9876543210", "70": "001", "90": "9" * 42, "94": "AB     ",
    "95": "000000000000" + "ABC " + " " * 26, "96": "8899AABBCCDDEEFF", "99": "2", "100": "40000000001",
    "101": "FILE 17", "102": "DE89 3704 0044 0532 0130 00 ", "103": "0", "104": "q" * 100,
    **{str(field): "r" * (field - 104) for field in range(105, 120)},
    "120": "i", "121": "j", "122": "k", "123": "l", "124": "m", "125": "n", "126": "o", "127": "p" * 999,
    "128": "0011223344556677",
}

ECHOED = ("2", "3", "4", "7", "11", "12", "13", "32", "33", "37", "41", "42", "49", "70", "90")


def answer(request, fields):
    return {field: request[field] for field in ECHOED if field in request} | fields


APPROVED = {"38": "A1B2C3", "39": "00"}
IN_PART = {"4": "000000005000", "38": "A1B2C3", "39": "10", "54": "0057840D000000012345"}

CASES = [
    ("a purchase", "0100", PURCHASE),
    ("a purchase, repeated", "0101", PURCHASE),
    ("an approval", "0110", answer(PURCHASE, APPROVED)),
    ("a partial approval", "0110", answer(PURCHASE, IN_PART)),
    ("a decline", "0110", answer(PURCHASE, {"39": "61"})),
    ("an advice", "0120", ADVICE),
    ("an advice, repeated", "0121", ADVICE),
    ("the answer to an advice", "0130", answer(ADVICE, {"39": "00"})),
    ("a reversal", "0400", REVERSAL),
    ("a reversal, repeated", "0401", REVERSAL),
    ("a partial reversal", "0400", PARTIAL),
    ("the answer to a reversal", "0410", answer(REVERSAL, {"39": "00"})),
    ("a reversal advice", "0420", REVERSAL | {"39": "68"}),
    ("a reversal advice, repeated", "0421", REVERSAL | {"39": "68"}),
    ("the answer to a reversal advice", "0430", answer(REVERSAL, {"39": "00"})),
    ("an echo test", "0800", NETWORK),
    ("the answer to an echo test", "0810", answer(NETWORK, {"39": "00"})),
    ("every field", "0100", FULL),
    ("no field", "0800", {}),
    ("a chip", "0100", PURCHASE | {"35": FULL["35"], "52": FULL["52"], "55": "9F0206000000012345"}),
    ("the second bitmap alone", "0810", {"70": "301"}),
]


def written(mti, fields, spec):
    return bytes(iso8583.encode({"t": mti, **fields}, spec)[0])


cases = [
    {
        "name": name,
        "mti": mti,
        "fields": dict(fields),
        "ascii": written(mti, fields, specs.default_ascii).decode("ascii"),
        "ascii_binary": written(mti, fields, specs.default).hex().upper(),
    }
    for name, mti, fields in CASES
]
table = [
    [field, spec["len_type"], spec["max_len"], spec["data_enc"] == "b"]
    for field in range(2, 129)
    for spec in [specs.default[str(field)]]
]
rows = ",\n".join(f"  {json.dumps(row)}" for row in table)
print(f'{{\n "table": [\n{rows}\n ],\n "cases": {json.dumps(cases, indent=1)}\n}}')
