#!/bin/sh
# Installs or upgrades the bridge as a service, from this checkout. May be run any number of times.
# $DESTDIR: install below this folder instead (for packages and tests); the service manager is then left alone.
set -eu

source=$(cd "$(dirname "$0")/.." && pwd)
root=${DESTDIR:-}
home=/opt/smgw-bridge
python=${PYTHON:-python3}

if [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
    echo "install.sh must be run as root" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; PYTHON=… names another one" >&2
    exit 1
fi

[ -x "$root$home/bin/python" ] || "$python" -m venv "$root$home"
"$root$home/bin/pip" install --quiet --disable-pip-version-check --upgrade "$source"

user=root
if [ -z "$root" ]; then
    user=smgw-bridge
    id "$user" >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin "$user"
    install -d -m 700 -o "$user" -g "$user" /var/lib/smgw-bridge
fi
# The service may replace its configuration, which is changed in the pages, too.
install -d -m 775 -g "$user" "$root/etc/smgw-bridge"
install -d -m 755 "$root/etc/systemd/system" "$root/usr/local/bin"
if [ ! -e "$root/etc/smgw-bridge/bridge.yaml" ]; then
    # It may hold the broker's password: for root and the service only.
    install -m 640 -g "$user" "$source/deploy/bridge.yaml" "$root/etc/smgw-bridge/bridge.yaml"
fi
install -m 644 "$source/deploy/smgw-bridge.service" "$root/etc/systemd/system/smgw-bridge.service"
ln -sfn "$home/bin/smgw-bridge" "$root/usr/local/bin/smgw-bridge"

if [ -z "$root" ] && command -v systemctl >/dev/null; then
    systemctl daemon-reload
    systemctl try-restart smgw-bridge
fi
echo "Installed. Next: edit /etc/smgw-bridge/bridge.yaml, then see deploy/README.md."
