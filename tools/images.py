"""Build the container images with docker, podman or buildah, and write their bills of materials to build/sbom/."""

import argparse
import sys

from recbandits.checks import write_text
from recbandits.config import Config
from recbandits.platforms.images import checkout, context, targets
from recbandits.platforms.local.images import LocalImages
from recbandits.platforms.protocol import PlatformError
from tools.find_secrets import find_secrets
from tools.lock import ROOT
from tools.sbom import make_sbom


def main():
    root = checkout()
    names, parser = targets(root), argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--base", help="image to begin with, instead of the one in docker/Dockerfile")
    arguments = parser.parse_args()
    try:
        images = LocalImages(Config.load())
        print("looking for secrets in the files of the images", flush=True)
        if findings := find_secrets([root / path for path in context(root)]):
            sys.exit("no image was built, as its files have secrets:\n" + "\n".join(findings))
        for name in arguments.images:
            print(f"built {images.build(name, arguments.base or None)}")
            sbom = write_text(ROOT / "build" / "sbom" / f"{name}.cdx.json", make_sbom(name, arguments.base))
            print(f"wrote {sbom.relative_to(ROOT)}")
    except (PlatformError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
