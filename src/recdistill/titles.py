"""One form of a title, for everything that stores, prompts, embeds, matches or serves it."""

from __future__ import annotations

import html
import unicodedata

_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»"}  # an apostrophe opens titles such as 'Til There Was You


def normalise_title(title: str) -> str:
    """Return the one form of a title that is stored, prompted, embedded and matched.

    HTML entities are unescaped once, white space is collapsed, one pair of quotation marks around the whole
    is taken off, and the text is brought to Unicode form NFC.

    Examples
    --------
    >>> normalise_title('  "Tom Clancy&#39;s   Ghost Recon" ')
    "Tom Clancy's Ghost Recon"
    """
    text = " ".join(unicodedata.normalize("NFC", html.unescape(title)).split())
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
