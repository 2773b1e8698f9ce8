"""What an attacker, or a bad day, puts in: strings, numbers and ids near every edge we know."""

from __future__ import annotations

from hypothesis import strategies as st

#: Company ids that mean something to a path, a URI, a shell, a terminal or Unicode.
IDS = (
    *("", ".", "..", "../x", "../../etc/x", "/etc/x", "a/b", "a\\b", "a/../b", "./a", "a/."),
    *("a?mode=memory", "a?", "a%2e%2e", "%2e%2e%2fx", "a%00b", "a#b", "a;b", "a&b", "a:b", "a@b"),
    *("a\0b", "\0", "a\nb", "a\n", "\ra", "a\tb", "a b", " a", "a ", "~", "~root", "$HOME", "`id`"),
    *("$(id)", "-", "--", "-a", "--help", "a'b", 'a"b', "a|b", "a>b", "*", "[a]", "{a}", "CON"),
    *("é", "ａｃｍｅ", "а", "a\u0301", "\u202eemca", "a\u200bb", "\ufeffa", "١٢٣", "²", "ß", "İ"),
    *("\U0001f4a9", "a" * 50, "a" * 51, "a" * 200, "a" * 201, "a" * 100_000, "x" * 50 + "\n"),
)
#: Strings that look like phone numbers or JIDs, and are wrong in one place, or just right.
ADDRESSES = (
    *("", " ", "+", "0", "+0", "+15550100", "1 (555) 010-0100", "15550100\n", "15550100\0"),
    *("１５５５０１００", "١٥٥٥٠١٠٠", "+1555０100", "\u202e15550100", "1555\u200b0100", "²5550100"),
    *("1" * 15, "1" * 16, "1" * 100_000, "+" * 20, "-" * 20, "()" * 20, "@", "@@", "a@", "@lid"),
    *("1@lid", "1:0@lid", "1:1@lid", "1:65536@lid", f"1:{'9' * 5000}@lid", "1:١@lid", "1:-1@lid"),
    *("1-2@g.us", "-@g.us", f"{'1' * 41}@g.us", f"{'1' * 42}@g.us", "1@g.us\n", "1@newsletter"),
    *("1@c.us", "1@s.whatsapp.net", "status@broadcast", "1@S.WHATSAPP.NET", "1@2@lid", "1:2:3@lid"),
)
EDGES = tuple(
    sign * (1 << power) + off
    for power in (0, 7, 8, 15, 16, 31, 32, 53, 62, 63)
    for off in (-1, 0, 1)
    for sign in (1, -1)
    if -(2**63) <= sign * (1 << power) + off < 2**64
)

#: Also what Unicode has and nobody expects: the NUL, lone CRs, overrides, what has no width.
texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(IDS),
    st.sampled_from(ADDRESSES),
    st.sampled_from(("\0", "\r", "\x1b[2J", "\u202e", "\ufffd", "\ud7ff", "a" * 65_536)),
)
ids = st.one_of(st.sampled_from(IDS), st.text("abZ09_-./%?\0é", max_size=60))
#: With halves of surrogate pairs, as JSON, the command line and file names can bring them.
torn_texts = st.one_of(
    texts, st.text(st.characters(), max_size=20), st.just("\ud800"), st.just("a\udcff")
)
#: What a command line or an environment can bring: bytes that are no UTF-8 come as `\\udcXX`.
arguments = texts.map(lambda text: text.replace("\0", "")) | st.sampled_from(("\udc80", "a\udcff"))
addresses = st.one_of(
    st.sampled_from(ADDRESSES), st.text("+0123456789 ().-@:lidg.us\0", max_size=40), texts
)
#: What fits into 64 bits, as MessagePack carries it.
integers = st.one_of(st.sampled_from(EDGES), st.integers(-(2**63), 2**64 - 1))
floats = st.floats() | st.sampled_from((0.0, -0.0, 1e308, 5e-324))
scalars = st.one_of(
    st.none(), st.booleans(), integers, floats, texts, ids, addresses, st.binary(max_size=20)
)
#: Everything that MessagePack can say, keys of other types than strings included.
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(texts, st.binary(max_size=5), integers), inner, max_size=4),
    ),
    max_leaves=8,
)
#: What a call may hold; keys of other types end its connection.
call_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
#: What JSON files and TOML can say beside that: numbers without end.
json_values = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), floats, torn_texts, ids, addresses, integers),
        st.sampled_from((10**30, -(10**30), 10**4000)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(torn_texts, inner, max_size=3)
    ),
    max_leaves=6,
)


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What was right once: as it was, cut short, with bytes changed, doubled, or something behind
    it. Gets further into a reader than bytes of chance do."""

    @st.composite
    def damage(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(whole))
        for _ in range(draw(st.integers(0, 3))):
            place = draw(st.integers(0, len(data)))
            match draw(st.integers(0, 3)):
                case 0:
                    del data[place:]
                case 1 if place < len(data):
                    data[place] = draw(st.integers(0, 255))
                case 2:
                    data[place:place] = draw(st.binary(max_size=8))
                case _:
                    data += data[place:]
        return bytes(data)

    return st.one_of(damage(), st.binary(max_size=200))
