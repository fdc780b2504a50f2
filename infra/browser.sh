#!/usr/bin/env bash
# Sees to a headless Chromium for the tests of pages: the one that is there, or Debian's, unpacked under the cache without
# root and without changing the machine (about 100 MB). Elsewhere it says so, and those tests are skipped. Safe to run again.
set -euo pipefail
package=chromium-headless-shell
home=${COEVAL_CACHE:-$HOME/.cache/coeval}/browser
say() { printf '%-78s\n' "[test] browser         $1" >&2; }

for name in "${CHROMIUM:-}" chromium chromium-headless-shell chromium-browser google-chrome chrome chrome-headless-shell; do
  if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
if [ -x "$home/chromium" ]; then exit 0; fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  say "no Chromium and no apt-get: tests of pages are skipped; set CHROMIUM to one"
  exit 0
fi

mkdir -p "$(dirname "$home")"
work=$(mktemp -d "$home.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial"
apt=(apt-get -q -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o Debug::NoLocking=true -o APT::Sandbox::User=)
say "fetching $package ..."
if ! {
  "${apt[@]}" update &&
    "${apt[@]}" -s install --no-install-recommends "$package" | awk '/^Inst/ {print $2}' >"$work/names" &&
    (cd "$work/archives" && xargs "${apt[@]}" download <"$work/names")
} >"$work/log" 2>&1; then
  say "$package cannot be fetched ($(grep -m1 '^E:' "$work/log" || echo 'see apt-get')): tests of pages are skipped"
  exit 0
fi
mkdir -p "$work/made"
for archive in "$work"/archives/*.deb; do dpkg-deb -x "$archive" "$work/made/root"; done
cat >"$work/made/chromium" <<'END'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
libraries=$(find "$root/usr/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
LD_LIBRARY_PATH=$libraries exec "$root/usr/lib/chromium/chromium-headless-shell" "$@"
END
chmod +x "$work/made/chromium"
mv -T "$work/made" "$home" 2>/dev/null || [ -x "$home/chromium" ]
say "Debian's $package, in $home"
