"""Makes PDF files for tests."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import pypdf


def pdf(pages: Sequence[str], password: str = "") -> bytes:
    """A PDF file with a page for each text, whose lines are as they are."""
    bodies = [b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        lines = "".join(f"({line}) Tj T*\n" for line in text.splitlines())
        content = zlib.compress(f"BT /F1 12 Tf 14 TL 72 720 Td\n{lines}ET".encode("latin-1"))
        number = len(bodies) + 3  # after the catalogue and the tree of pages
        bodies.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            b"/Contents %d 0 R >>" % (number + 1)
        )
        bodies.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(content), content))
        kids.append(number)
    tree = b"<< /Type /Pages /Count %d /Kids [%b] >>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    found = _file([b"<< /Type /Catalog /Pages 2 0 R >>", tree, *bodies])
    if not password:
        return found
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(found))
    writer.encrypt(password, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def bomb(size: int) -> bytes:
    """A PDF file with one page, whose content decompresses to `size` bytes of an unending text."""
    content = zlib.compress(b"BT /F1 12 Tf " + b"(a) Tj " * (size // 7) + b"ET", 9)
    font = b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] %b /Contents 4 0 R >>" % font
    stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(content), content)
    tree = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    return _file([b"<< /Type /Catalog /Pages 2 0 R >>", tree, page, stream])


def _file(objects: Sequence[bytes]) -> bytes:
    """A file of objects, which are numbered from 1; the first one is the catalogue."""
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end
