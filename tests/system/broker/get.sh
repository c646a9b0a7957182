#!/bin/sh
# Gets a Kafka broker for the tests into FOLDER/libs: sh tests/system/broker/get.sh FOLDER
# Java 17 and Maven are installed if they are not there and this machine lets us.
set -eu
here=$(dirname "$0")
folder=$1

# Somebody's own broker, or a Kafka that is installed: nothing to get.
if [ -n "${TICKPATH_TEST_KAFKA:-}${KAFKA_HOME:-}" ]; then
    exit 0
fi

if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: the tests start a real Kafka broker: install Java 17 or newer and Maven (on Debian:" \
            "apt-get install maven default-jre-headless), or set KAFKA_HOME to an unpacked Kafka 4," \
            "or TICKPATH_TEST_KAFKA to host:port of a broker" >&2
        exit 1
    fi
    echo "  Java and Maven"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends maven default-jre-headless >/dev/null
fi

mkdir -p "$folder"
rm -rf "$folder/libs"
folder=$(cd "$folder" && pwd)
mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$folder/libs.part" -Dmdep.overWriteReleases=true
mv "$folder/libs.part" "$folder/libs"
