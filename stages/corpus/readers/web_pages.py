"""Converts a web page to UTF-8, from the encoding in which a browser would read it.

In the order of html.spec.whatwg.org, "determining the character encoding": a byte order mark, the charset of the HTTP
header, the page's <meta> elements, its XML declaration. Where nothing is declared, a page is UTF-8 if it looks like
that, and otherwise what chardetng finds, the detector of Firefox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from stages.corpus.readers.character_sets import UTF8, Encoding, encoding_of, marked

HEAD_BYTES = 64 << 10  # in which a declaration is searched; browsers also follow one after their first 1,024 bytes
_HEADER = re.compile(r"""charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)
_SPACE = rb"[\t\n\f\r ]"
# What a browser skips while it searches for <meta>; the name of an element is followed by its attributes.
_MARKUP = re.compile(rb"<!--(?:-?>|.*?(?:-->|\Z))|<(?:/?([a-z][^\s/>]*+)|[!?/][^>]*+)", re.IGNORECASE | re.DOTALL)
_ATTRIBUTE = re.compile(
    rb"[\s/]*+([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"?|'([^']*+)'?|([^\s>]*+)))?+", re.DOTALL
)
_CONTENT = re.compile(
    rb"charset" + _SPACE + rb"*=" + _SPACE + rb"*(?:\"([^\"]*)\"|'([^']*)'|([^\"'\t\n\f\r ;][^\t\n\f\r ;]*))",
    re.IGNORECASE,
)
_XML = re.compile(rb"<\?xml[^>]*?\bencoding\s*=\s*[\"']([^\"'>]*)[\"'][^>]*>")
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*>")


def utf8_page(page: bytes, content_type: str = "", url: str = "") -> bytes:
    """The page in UTF-8, without byte order mark and XML declaration; U+FFFD stands for what cannot be decoded.

    content_type: the HTTP header; empty without one. url: its top-level domain helps where no encoding is declared.
    """
    mark, encoding = marked(page)
    text = (encoding or _declared(page, content_type) or _detected(page, url)).decode(page[len(mark) :])
    # An XML declaration would contradict the encoding of the result.
    return _XML_DECLARATION.sub("", text).encode("utf-8", "replace")


def _declared(page: bytes, content_type: str) -> Encoding | None:
    """The encoding that the header or the page declares; None without a known one."""
    if (named := _HEADER.search(content_type)) and (encoding := encoding_of(named[1])):
        return encoding
    for start, label in ((b"<\0?\0x\0", "utf-16le"), (b"\0<\0?\0x", "utf-16be")):
        if page.startswith(start):
            return encoding_of(label)
    head = page[:HEAD_BYTES]
    xml = _XML.match(head)
    for named_in_page in (*_meta_labels(head), *([xml[1]] if xml else [])):
        if encoding := encoding_of(_in_page(named_in_page)):
            return encoding
    return None


def _in_page(label: bytes) -> str:
    """A label as it counts within a page: one that declares UTF-16 in ASCII is wrong."""
    import webencodings

    found = webencodings.lookup(label.decode("latin-1"))
    name = found.name if found else ""
    return {"utf-16le": UTF8, "utf-16be": UTF8, "x-user-defined": "windows-1252"}.get(name, name)


def _meta_labels(head: bytes) -> Iterator[bytes]:
    """What <meta> elements declare: "prescan a byte stream to determine its encoding" in the standard."""
    position = 0
    while found := _MARKUP.search(head, position):
        position = found.end()
        if found[1] is None:
            continue
        attributes: dict[bytes, bytes] = {}
        while attribute := _ATTRIBUTE.match(head, position):
            position = attribute.end()
            value = next((group for group in attribute.groups()[1:] if group is not None), b"")
            attributes.setdefault(attribute[1].lower(), value)
        if found[1].lower() != b"meta":
            continue
        if b"charset" in attributes:
            yield attributes[b"charset"]
        elif attributes.get(b"http-equiv", b"").lower() == b"content-type" and (
            content := _CONTENT.search(attributes.get(b"content", b""))
        ):
            yield next(group for group in content.groups() if group is not None)


def _detected(page: bytes, url: str) -> Encoding:
    try:
        page.decode(UTF8)
        return Encoding(UTF8)
    except UnicodeDecodeError:
        pass
    # A few bad bytes do not make a page of UTF-8 one of another encoding.
    text = page.decode(UTF8, "replace")
    bad = text.count("\ufffd")
    if 2 * bad <= len(text) - len(text.encode("ascii", "ignore")):
        return Encoding(UTF8)
    from chardetng_py import detect

    return encoding_of(detect(page, tld=_top_level_domain(url))) or Encoding(UTF8)


def _top_level_domain(url: str) -> bytes | None:
    try:
        domain = (urlsplit(url).hostname or "").rpartition(".")[2].lower()
    except ValueError:
        return None
    return domain.encode() if domain.isascii() and domain.isalpha() else None
