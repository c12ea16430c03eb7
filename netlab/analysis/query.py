"""A small language for choosing rows: ``retransmission > 5 and host in 10.0.0.0/8``.

Grammar, loosest first::

    expression  =  conjunction ("or" conjunction)*
    conjunction =  negation ("and" negation)*
    negation    =  "not" negation | comparison
    comparison  =  sum (("=="|"!="|"<"|"<="|">"|">="|"~"|"in") sum)?
    sum         =  product (("+"|"-") product)*
    product     =  atom (("*"|"/") atom)*
    atom        =  number [unit] | "text" | address[/length] | column | "(" expression ")"

Nothing is evaluated by Python: an expression becomes a tree of closures over one row, a mapping
from column to value. A number with a unit becomes the unit of the table's columns: times are
nanoseconds, rates bits per second, sizes bytes, ratios 0…1. ``~`` searches a regular expression
in text; ``in`` asks whether an address lies in a network. A comparison with a missing value
(None) is false, whatever the operator, also ``!=``; to ask for presence compare a column that is
never missing.

Two conveniences for tables with a column for each end (``orig_``, ``resp_``): `host` and `port`
match either end, and the rest of such a pair's name alone (``retransmission``) means the sum of
both.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, NoReturn, TypeAlias

from netlab import units
from netlab.errors import UsageError

Value: TypeAlias = "int | float | str | bool | None"
Row: TypeAlias = "Mapping[str, Value]"
Test: TypeAlias = "Callable[[Row], bool]"
_Network: TypeAlias = "IPv4Network | IPv6Network"
_Node: TypeAlias = "Callable[[Row], object]"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<address>\d+\.\d+\.\d+\.\d+(?:/\d+)?
        | (?:[0-9A-Fa-f]{1,4})?:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*(?:/\d+)?)
    | (?P<number>(?:\d[\d_]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?)(?P<unit>(?:[A-Za-zµ]+(?:/s)?|%)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_.]*)
    | (?P<operator><=|>=|==|!=|&&|\|\||[-+*/()<>=~!])
    )""",
    re.VERBOSE,
)

_Compare: TypeAlias = "Callable[[Any, Any], bool]"
_Arithmetic: TypeAlias = "Callable[[float, float], float]"

_COMPARE: Final[dict[str, _Compare]] = {
    "==": operator.eq, "=": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ARITHMETIC: Final[dict[str, _Arithmetic]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": lambda a, b: a / b,
}  # fmt: skip
_WORDS: Final = {"&&": "and", "||": "or", "!": "not"}
_MOST_DEPTH: Final = 50
_MOST_LENGTH: Final = 2000


class QueryError(UsageError):
    """An expression does not parse, or names what the table does not have."""

    def __init__(self, expression: str, place: int, problem: str, hint: str | None = None) -> None:
        shown = expression if len(expression) <= 200 else expression[:197] + "..."
        super().__init__(f"in {shown!r}, column {place + 1}: {problem}", hint=hint)


class _Token:
    __slots__ = ("kind", "place", "text", "value")

    def __init__(self, kind: str, text: str, place: int, value: object = None) -> None:
        self.kind, self.text, self.place, self.value = kind, text, place, value


def _quantity(expression: str, place: int, number: str, unit: str) -> int | float:
    """Turn a number and a unit into the unit that the table's columns use."""
    plain = number.replace("_", "")
    if not unit:
        return float(plain) if re.search(r"[.eE]", plain) else int(plain)
    try:
        if unit == "%":
            return float(plain) / 100
        if unit in ("ns", "us", "µs", "ms", "s", "min", "h"):
            return round(units.parse_time(plain + unit) * 1e9)
        if "bit" in unit.lower() or unit.endswith("bps"):
            return units.parse_rate(plain + unit)
        return units.parse_size(plain + unit)
    except ValueError:
        raise QueryError(
            expression, place, f"{unit!r} is no unit",
            "write times as 20ms, rates as 10mbit, sizes as 64KiB or 1500B, ratios as 1%",
        ) from None  # fmt: skip


def _tokens(expression: str) -> list[_Token]:
    if len(expression) > _MOST_LENGTH:
        raise QueryError(expression, _MOST_LENGTH, "the expression is too long")
    found: list[_Token] = []
    place = 0
    stripped = expression.rstrip()
    while place < len(stripped):
        match = _TOKEN.match(stripped, place)
        if match is None or match.lastgroup is None:
            start = place + len(stripped[place:]) - len(stripped[place:].lstrip())
            raise QueryError(expression, start, f"{stripped[start]!r} is not understood here")
        start = match.end() - len(match.group().lstrip())
        text = match.group().strip()
        if match["text"] is not None:
            value = re.sub(r"\\(.)", r"\1", text[1:-1])
            found.append(_Token("text", text, start, value))
        elif match["address"] is not None:
            try:
                network = ip_network(text, strict=False) if "/" in text else ip_address(text)
            except ValueError:
                raise QueryError(expression, start, f"{text!r} is no address") from None
            found.append(_Token("address", text, start, network))
        elif match["number"] is not None:
            quantity = _quantity(expression, start, match["number"], match["unit"])
            found.append(_Token("number", text, start, quantity))
        elif match["name"] is not None:
            word = text.lower()
            kind = "operator" if word in ("and", "or", "not", "in") else "name"
            found.append(_Token(kind, word if kind == "operator" else text, start))
        else:
            found.append(_Token("operator", _WORDS.get(text, text), start))
        place = match.end()
    return found


@lru_cache(maxsize=4096)
def _address(text: str) -> object:
    try:
        return ip_address(text)
    except ValueError:
        return None


class _Either:
    """The two values of a pair of columns, for names that match either end."""

    __slots__ = ("values",)

    def __init__(self, values: tuple[object, object]) -> None:
        self.values = values


class _Parser:
    def __init__(self, expression: str, columns: Sequence[str]) -> None:
        self.expression = expression
        self.columns = frozenset(columns)
        self.used: set[str] = set()
        self.tokens = _tokens(expression)
        self.at = 0
        self.depth = 0

    def fail(self, problem: str, hint: str | None = None, place: int | None = None) -> NoReturn:
        if place is None:
            rest = self.tokens[self.at :]
            place = rest[0].place if rest else len(self.expression.rstrip())
        raise QueryError(self.expression, place, problem, hint)

    def peek(self, *texts: str) -> bool:
        if self.at >= len(self.tokens):
            return False
        token = self.tokens[self.at]
        return token.kind == "operator" and token.text in texts

    def take(self) -> _Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def whole(self) -> _Node:
        if not self.tokens:
            self.fail("the expression is empty")
        node = self.disjunction()
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            hint = "text needs quotes" if token.kind == "name" else None
            self.fail(f"{token.text!r} is one thing too many", hint)
        return node

    def disjunction(self) -> _Node:
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            self.fail("too deeply nested")
        parts = [self.conjunction()]
        while self.peek("or"):
            self.take()
            parts.append(self.conjunction())
        self.depth -= 1
        if len(parts) == 1:
            return parts[0]
        return lambda row: any(_truth(part(row)) for part in parts)

    def conjunction(self) -> _Node:
        parts = [self.negation()]
        while self.peek("and"):
            self.take()
            parts.append(self.negation())
        if len(parts) == 1:
            return parts[0]
        return lambda row: all(_truth(part(row)) for part in parts)

    def negation(self) -> _Node:
        inverted = False
        while self.peek("not"):
            self.take()
            inverted = not inverted
        inner = self.comparison()
        return (lambda row: not _truth(inner(row))) if inverted else inner

    def comparison(self) -> _Node:
        left = self.sum()
        if not self.peek("==", "=", "!=", "<", "<=", ">", ">=", "~", "in"):
            return left
        sign = self.take()
        right = self.sum()
        if self.peek("==", "=", "!=", "<", "<=", ">", ">=", "~", "in"):
            self.fail("comparisons do not chain", "join them with 'and'")
        if sign.text == "~":
            return self.search(left, right, sign.place)
        if sign.text == "in":
            return lambda row: _pairwise(left(row), right(row), _within)
        compare = _COMPARE[sign.text]
        if sign.text == "!=":
            return lambda row: _pairwise(left(row), right(row), _compared(compare), every=True)
        return lambda row: _pairwise(left(row), right(row), _compared(compare))

    def search(self, left: _Node, right: _Node, place: int) -> _Node:
        pattern_text = right({}) if self.tokens[self.at - 1].kind == "text" else None
        if not isinstance(pattern_text, str):
            self.fail("'~' needs a quoted pattern on its right", place=place)
        try:
            pattern = re.compile(pattern_text)
        except re.error as error:
            self.fail(f"{pattern_text!r} is no regular expression: {error}", place=place)
        return lambda row: _pairwise(
            left(row), pattern, lambda text, _: pattern.search(str(text)) is not None
        )

    def sum(self) -> _Node:
        node = self.product()
        while self.peek("+", "-"):
            node = self.arithmetic(node, self.take(), self.product())
        return node

    def product(self) -> _Node:
        node = self.atom()
        while self.peek("*", "/"):
            node = self.arithmetic(node, self.take(), self.atom())
        return node

    def arithmetic(self, left: _Node, sign: _Token, right: _Node) -> _Node:
        function = _ARITHMETIC[sign.text]

        def node(row: Row) -> object:
            a, b = left(row), right(row)
            if a is None or b is None:
                return None
            if isinstance(a, int | float) and isinstance(b, int | float):
                return None if sign.text == "/" and b == 0 else function(a, b)
            raise QueryError(
                self.expression, sign.place, f"{sign.text!r} works on numbers, not on text"
            )

        return node

    def atom(self) -> _Node:
        if self.peek("("):
            self.take()
            node = self.disjunction()
            if not self.peek(")"):
                self.fail("a ')' is missing")
            self.take()
            return node
        if self.peek("-"):
            self.take()
            inner = self.atom()
            return lambda row: -value if isinstance(value := inner(row), int | float) else None
        if self.at >= len(self.tokens):
            self.fail("something is missing at the end")
        token = self.take()
        if token.kind == "name":
            return self.column(token)
        if token.kind == "operator":
            self.at -= 1
            self.fail(f"{token.text!r} is not understood here")
        value = token.value
        return lambda _: value

    def column(self, token: _Token) -> _Node:
        name = token.text
        if name in self.columns:
            self.used.add(name)
            return lambda row: row[name]
        if name in ("true", "false"):
            return lambda _: name == "true"
        ends = {"host": ("orig_h", "resp_h"), "port": ("orig_p", "resp_p")}.get(name)
        if ends is not None and self.columns.issuperset(ends):
            one, two = ends
            self.used.update(ends)
            return lambda row: _Either((row[one], row[two]))
        pair = (f"orig_{name}", f"resp_{name}")
        if not self.columns.issuperset(pair):
            self.unknown(token)
        self.used.update(pair)
        return lambda row: _sum(row[pair[0]], row[pair[1]])

    def unknown(self, token: _Token) -> NoReturn:
        known = sorted(self.columns | {c[5:] for c in self.columns if c.startswith("orig_")})
        close = get_close_matches(token.text, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "--columns lists them; text needs quotes"
        self.fail(f"there is no column {token.text!r}", hint, token.place)


def _sum(a: Value, b: Value) -> Value:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a + b
    return a if b is None else b


def _truth(value: object) -> bool:
    return bool(value)


def _pairwise(
    left: object, right: object, test: Callable[[object, object], bool], *, every: bool = False
) -> bool:
    """Apply a test, over both ends if one side stands for either end; None matches nothing."""
    if isinstance(left, _Either):
        results = [_pairwise(value, right, test) for value in left.values]
        return all(results) if every else any(results)
    if isinstance(right, _Either):
        results = [_pairwise(left, value, test) for value in right.values]
        return all(results) if every else any(results)
    if left is None or right is None:
        return False
    return test(left, right)


def _compared(compare: _Compare) -> Callable[[object, object], bool]:
    equality = compare in (operator.eq, operator.ne)

    def test(left: object, right: object) -> bool:
        if isinstance(left, str) != isinstance(right, str):
            # An address literal against a column of text.
            if isinstance(left, str):
                left = _address(left)
            elif isinstance(right, str):
                right = _address(right)
        try:
            return compare(left, right)
        except TypeError:
            return compare is operator.ne if equality else False

    return test


def _within(left: object, right: object) -> bool:
    address = _address(left) if isinstance(left, str) else left
    if isinstance(right, IPv4Network | IPv6Network):
        return address in right
    if isinstance(left, str) and isinstance(right, str):
        return left in right
    return address == right


def where(expression: str, columns: Sequence[str]) -> Test:
    """Compile `expression` for rows that have `columns`; QueryError says what is wrong where."""
    node = _Parser(expression, columns).whole()
    return lambda row: _truth(node(row))


def _over(
    parser: _Parser, fetch: Callable[[str], Sequence[Value]], length: int
) -> Iterator[Mapping[str, Value]]:
    """Yield rows that hold only the columns an expression uses."""
    names = sorted(parser.used)
    if not names:
        yield from ({} for _ in range(length))
        return
    for values in zip(*(fetch(name) for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def rows_where(
    expression: str, columns: Sequence[str], fetch: Callable[[str], Sequence[Value]], length: int
) -> list[int]:
    """Return the numbers of the rows of a table for which `expression` holds.

    `fetch` gives a column by name; only those that the expression names are asked for.
    """
    parser = _Parser(expression, columns)
    node = parser.whole()
    return [number for number, row in enumerate(_over(parser, fetch, length)) if _truth(node(row))]


def sort_values(
    expression: str, columns: Sequence[str], fetch: Callable[[str], Sequence[Value]], length: int
) -> list[tuple[bool, Any]]:
    """Return a value to sort by for each row; rows without a value are below all others.

    Text and numbers do not meet in one column, so the values of one expression always compare.
    """
    parser = _Parser(expression, columns)
    node = parser.whole()
    found: list[tuple[bool, Any]] = []
    for row in _over(parser, fetch, length):
        value = node(row)
        if isinstance(value, _Either):
            value = value.values[0]
        found.append((value is not None, 0 if value is None else value))
    return found
