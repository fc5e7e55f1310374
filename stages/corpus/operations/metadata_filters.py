"""Drops documents by their metadata: licence, address, path, and removal requests of their owners."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, Field, model_validator

from stages.corpus.operations.operation import Apply, Draft, Drop, Operation
from stages.corpus.operations.word_lists import WordList

Names = tuple[Annotated[str, Field(min_length=1)], ...]
LowerNames = Annotated[Names, AfterValidator(lambda names: tuple(name.strip().lower() for name in names))]


class License(Operation):
    """Keeps documents whose licence is allowed, and drops those whose licence is denied.

    Licences are SPDX expressions; names may contain "*" ("GPL-*"). With OR, one acceptable part is enough; with AND,
    every part must be acceptable. An empty `allow` allows everything that is not denied.
    """

    operation: Literal["license"] = "license"
    allow: LowerNames = ()
    deny: LowerNames = ()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not self.allow and not self.deny:
            raise ValueError("nothing would be dropped: set allow or deny")
        return self

    def function(self) -> Apply:
        from stages.corpus.statistics.spdx import accepts, matches

        def accepted(name: str) -> bool:
            return (not self.allow or matches(name, self.allow)) and not matches(name, self.deny)

        def apply(draft: Draft) -> Draft | Drop:
            wanted = "allowed" if self.allow else "not denied"
            return draft if accepts(draft.license, accepted) else Drop("license", draft.license, wanted)

        return apply


class Paths(Operation):
    """Keeps or drops documents by globs on their path within the source ("**/test/*", "User *")."""

    operation: Literal["paths"] = "paths"
    allow: Names = ()  # empty: all that are not denied
    deny: Names = ()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not self.allow and not self.deny:
            raise ValueError("nothing would be dropped: set allow or deny")
        return self

    def function(self) -> Apply:
        allowed, denied = _globs(self.allow), _globs(self.deny)

        def apply(draft: Draft) -> Draft | Drop:
            if allowed and not allowed.match(draft.path):
                return Drop("path_not_allowed", draft.path, ", ".join(self.allow))
            if denied and denied.match(draft.path):
                return Drop("path_denied", draft.path, ", ".join(self.deny))
            return draft

        return apply


class Urls(Operation):
    """Keeps or drops documents by address: by its host and parent domains, by words in it, by lists of hosts."""

    operation: Literal["urls"] = "urls"
    allow_hosts: LowerNames = ()  # "example.org" covers "www.example.org"; empty: all that are not denied
    deny_hosts: LowerNames = ()
    deny_words: LowerNames = ()  # whole words anywhere in the address
    deny_host_lists: tuple[WordList, ...] = ()
    without_address: Literal["keep", "drop"] = "keep"

    def function(self) -> Apply:
        allowed = frozenset(self.allow_hosts)
        denied = frozenset(self.deny_hosts).union(
            *({entry.lower() for entry in listed.entries()} for listed in self.deny_host_lists)
        )
        words = frozenset(self.deny_words)

        def apply(draft: Draft) -> Draft | Drop:
            if not draft.url:
                return draft if self.without_address == "keep" else Drop("no_url", "", "an address")
            host, _ = split_url(draft.url)
            if allowed and not allowed.intersection(_host_and_above(host)):
                return Drop("host_not_allowed", host, "an allowed host")
            if denied.intersection(_host_and_above(host)):
                return Drop("host_denied", host, "no denied host")
            found = words.intersection(re.split(r"[\W_]+", unquote(draft.url).lower()))
            return Drop("url_word", min(found), "no denied word") if found else draft

        return apply


class Removals(Operation):
    """Drops documents that a file lists: an address, a host, a path or a licence per line.

    "https://host/a/" includes everything below it; "host.org" includes its subdomains; a path or a licence must equal
    that of the document.
    """

    operation: Literal["removals"] = "removals"
    listed: WordList

    def function(self) -> Apply:
        entries = self.listed.entries()
        addresses = {_address(*split_url(entry)) for entry in entries if "://" in entry}
        names = {entry for entry in entries if "://" not in entry}
        lowered = {name.lower() for name in names}

        def asked(draft: Draft) -> str | None:
            if draft.path in names:
                return draft.path
            if draft.license.lower() in lowered:
                return draft.license
            if draft.url:
                host, path = split_url(draft.url)
                found = next((name for name in _host_and_above(host) if name in lowered), None)
                return found or next((part for part in _address_and_above(host, path) if part in addresses), None)
            return None

        def apply(draft: Draft) -> Draft | Drop:
            found = asked(draft)
            return draft if found is None else Drop("removal_list", found, "not listed")

        return apply


def split_url(url: str) -> tuple[str, str]:
    """The host (lower case, without "www." and port) and the path (decoded, without outer slashes) of an address."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = parts.hostname or ""
    except ValueError:  # an invalid port or bracket
        return "", ""
    return host.removeprefix("www.").rstrip("."), unquote(parts.path).strip("/")


def _host_and_above(host: str) -> Iterable[str]:
    labels = host.split(".")
    return (".".join(labels[place:]) for place in range(len(labels)))


def _address(host: str, path: str) -> str:
    return f"{host}/{path}"


def _address_and_above(host: str, path: str) -> Iterable[str]:
    parts = path.split("/")
    return (_address(host, "/".join(parts[:length])) for length in range(len(parts) + 1))


def _globs(patterns: Names) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, patterns))) if patterns else None
