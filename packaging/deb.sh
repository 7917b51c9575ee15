#!/usr/bin/env bash
# A Debian package of Willis with all that it needs, for this machine's Debian and processor, in build/deb.
# Needs: apt-get install dpkg-dev debhelper dh-virtualenv python3-venv. With a wheelhouse: PIP_NO_INDEX=1 PIP_FIND_LINKS=/FOLDER.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
to=build/deb
source=$to/willis-$version
rm -rf "$source"
mkdir -p "$source"
cp -r ai node storage training pyproject.toml constraints.txt README.md LICENSE "$source/"
find "$source" -name __pycache__ -prune -exec rm -r {} +
cp -r packaging/debian "$source/debian"
cp packaging/systemd/willis.service "$source/debian/willis.service"
for unit in packaging/systemd/willis-*; do cp "$unit" "$source/debian/willis.$(basename "$unit")"; done
mkdir -p "$source/debian/etc"
sed 's|^directory = "var" *#|directory = "/var/lib/willis"       #|' config.toml >"$source/debian/etc/config.toml"
grep -q '^directory = "/var/lib/willis"' "$source/debian/etc/config.toml"
echo "debian/etc/config.toml etc/willis" >"$source/debian/willis.install"
cat >"$source/debian/changelog" <<END
willis ($version) stable; urgency=medium

  * See CHANGELOG.md.

 -- The authors of Willis <willis@localhost>  $(date -R)
END
(cd "$source" && dpkg-buildpackage --build=binary --no-sign)
ls -l "$to"/*.deb
