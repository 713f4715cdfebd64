"""Write docs/licences.md from the metadata of the installed packages: python -m tools.licences."""

import re
from importlib import metadata

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement

from tools.lock import FILES, ROOT, blocks

PAGE = ROOT / "docs" / "licences.md"
_NVIDIA = "LicenseRef-NVIDIA-Proprietary"
# Pinned for macOS, Windows or a GPU: read once from the metadata of their wheels.
ELSEWHERE = {"appnope": "BSD-2-Clause", "colorama": "BSD-3-Clause", "pywin32": "PSF-2.0", "pywinpty": "MIT"}
_NAMES = (  # how packages without an SPDX expression say it
    (r"apache( software)?( license)?,?( version)?( 2(\.0)?)?", "Apache-2.0"),
    (r"mit license", "MIT"),
    (r"isc license( \(iscl\))?", "ISC"),
    (r"bsd 3-clause( license)?|3-clause bsd license", "BSD-3-Clause"),
    (r"bsd 2-clause license", "BSD-2-Clause"),
    (r"mozilla public license 2\.0 \(mpl 2\.0\)", "MPL-2.0"),
    (r"python software foundation license|psfl?", "PSF-2.0"),
)
_TEXTS = (  # what only the text of one licence has
    ("neither the name", "BSD-3-Clause"),
    ("redistribution and use in source and binary forms", "BSD-2-Clause"),
    ("apache license", "Apache-2.0"),
    ("permission is hereby granted, free of charge", "MIT"),
)


def find_licence(name):
    """Return the SPDX expression of a package; KeyError if its metadata and its texts name none.

    Its own expression counts first, then the field License, then classifiers, then the text of its licence files.
    """
    if name.startswith("nvidia-"):
        return _NVIDIA
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return ELSEWHERE[name]
    fields = package.metadata
    for text in (fields["License-Expression"], fields["License"]):
        if expression := _normalise(text or ""):
            return expression
    classifiers = [text.rpartition(" :: ")[2] for text in fields.get_all("Classifier") or () if "License ::" in text]
    named = sorted(filter(None, map(_normalise, classifiers)))
    if named and len(named) == len(classifiers):
        return " OR ".join(named)
    files = [file for file in package.files if re.search(r"dist-info/.*(licen[sc]e|copying)", str(file), re.I)]
    texts = " ".join(" ".join(file.read_text(encoding="utf-8") for file in files).lower().split())
    for text, expression in _TEXTS:
        if text in texts:
            return expression
    if classifiers == ["BSD License"]:  # of two or three clauses: it does not say
        return "LicenseRef-BSD"
    raise KeyError(name)


def _normalise(text):
    """Return the SPDX expression that a text is, or stands for; None for other texts."""
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return next((name for pattern, name in _NAMES if re.fullmatch(pattern, text.strip(), re.I)), None)


def find_sets():
    """Return dict from each pin of the locks, such as "numpy==2.3.5", to the names of the files that have it."""
    sets = {}
    for file in FILES:
        for pin in blocks((ROOT / file).read_text(encoding="utf-8")):
            sets.setdefault(pin.partition(" ;")[0], []).append(file.removeprefix("requirements/").removesuffix(".txt"))
    return sets


def table():
    """Return the rows of the page."""
    rows = ["| package | version | licence | locked for |", "|---|---|---|---|"]
    for pin, files in sorted(find_sets().items()):
        (specifier,) = Requirement(pin).specifier
        name = Requirement(pin).name
        names = ", ".join("environment" if file == "requirements" else file for file in files)
        rows.append(f"| {name} | {specifier.version} | {find_licence(name)} | {names} |")
    return "\n".join(rows)


def main():
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index("| package |")] + table() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
